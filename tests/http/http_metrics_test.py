"""GET /metrics: TorchServe's names and ours, after requests of both protocols."""
import json
import socket
import unittest

import grpc
from http_case import HttpServerTest
from penstock_server import request, wait_until

HOST = f'Level="Host",Hostname="{socket.gethostname()}",'


class MetricsPortTest(HttpServerTest):
    def test_it_answers_prometheus_text_and_nothing_else(self):
        reply = self.metrics()
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        self.assertEqual(self.call(self.server.metrics_address, "GET", "/ping").status, 404)
        self.assertEqual(self.infer("GET", "/metrics").status, 404)

    def test_the_machine_is_sampled_at_start(self):
        samples = self.samples()
        self.assertGreater(samples[f"MemoryAvailable{{{HOST}}}"], 0)
        self.assertGreater(samples[f"DiskAvailable{{{HOST}}}"], 0)
        self.assertIn(f"CPUUtilization{{{HOST}}}", samples)

    def test_names_choose_what_is_shown(self):
        text = self.metrics("?name[]=MemoryUsed&name%5B%5D=DiskUsage&other=x").text
        self.assertEqual([line.split("{")[0] for line in text.splitlines() if line[0] != "#"], ["MemoryUsed", "DiskUsage"])
        self.assertEqual(self.metrics("?name[]=nothing").text, "")
        self.assertEqual(self.metrics("?name[]=%zz").status, 400)

    def test_queues_and_workers_are_gauges(self):
        samples = self.samples()
        labels = '{model_name="tiny",model_version="1.0",}'
        self.assertEqual([samples[name + labels] for name in ("penstock_queue_depth", "penstock_requests_running", "penstock_workers_ready",
                                                              "penstock_workers")], [0, 0, 1, 1])


class EngineMetricsTest(HttpServerTest):
    """vLLM's names, of the fake worker's engine."""
    MODEL = 'model_name="tiny",model_version="1.0",'

    def test_a_generation_is_counted_by_its_tokens_and_its_end(self):
        before = self.samples()
        answer = self.infer("POST", "/v1/completions", json.dumps({"model": "tiny", "prompt": "a b c", "max_tokens": 4}))
        self.assertEqual(answer.status, 200)
        expected = {
            f"vllm:prompt_tokens_total{{{self.MODEL}}}": 3,
            f"vllm:generation_tokens_total{{{self.MODEL}}}": 4,
            f'vllm:request_success_total{{{self.MODEL}finished_reason="length",}}': 1,
            f"vllm:time_to_first_token_seconds_count{{{self.MODEL}}}": 1,
            f"vllm:inter_token_latency_seconds_count{{{self.MODEL}}}": 3,
            f"vllm:e2e_request_latency_seconds_count{{{self.MODEL}}}": 1,
            f'vllm:request_prompt_tokens_bucket{{{self.MODEL}le="5.0",}}': 1,
            f'vllm:prefix_cache_queries_total{{{self.MODEL}engine="0",}}': 3,
            f'vllm:prefix_cache_hits_total{{{self.MODEL}engine="0",}}': 1,
        }

        def counted():
            after = self.samples()
            return all(after.get(name, 0) - before.get(name, 0) == value for name, value in expected.items())

        wait_until(counted, what="the generation is counted")
        self.assertEqual(self.samples()[f'vllm:kv_cache_usage_perc{{{self.MODEL}engine="0",}}'], 0)
        self.assertEqual(self.samples()[f"vllm:num_requests_running{{{self.MODEL}}}"], 0)

    def test_what_runs_and_what_it_holds_are_gauges(self):
        body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 2000, "stream": True}).encode()
        with self.connect() as client:
            client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            client.recv(1)

            def running():
                samples = self.samples()
                return (samples[f"vllm:num_requests_running{{{self.MODEL}}}"], samples.get(f'vllm:kv_cache_usage_perc{{{self.MODEL}engine="0",}}')) == (1, 0.1)

            wait_until(running, what="the stream is seen")
        wait_until(lambda: self.samples()[f"vllm:num_requests_running{{{self.MODEL}}}"] == 0, what="the client's end is seen")
        wait_until(lambda: self.samples()[f'vllm:request_success_total{{{self.MODEL}finished_reason="abort",}}'] == 1, what="its end is counted")
        self.assertEqual(self.samples()[f'vllm:kv_cache_usage_perc{{{self.MODEL}engine="0",}}'], 0)


class RequestCountsTest(HttpServerTest):
    def grown(self, call):
        """What has become larger by the call, and by how much."""
        before = self.samples()
        call()
        found = {}

        def compare():
            found.clear()
            found.update({name: value - before.get(name, 0) for name, value in self.samples().items() if value != before.get(name, 0)})
            return any(name.startswith("Requests") for name in found)

        wait_until(compare, what="the request is counted")  # a moment after its answer
        return found

    def classes(self, found):
        return {name.split("{")[0]: value for name, value in found.items() if name.startswith("Requests")}

    def assert_inference(self, found, protocol, messages):
        labels = f'{{model_name="tiny",model_version="1.0",hostname="{socket.gethostname()}",}}'
        self.assertEqual(found["ts_inference_requests_total" + labels], 1)
        self.assertGreater(found["ts_inference_latency_microseconds" + labels], 0)
        ours = f'{{model_name="tiny",model_version="1.0",protocol="{protocol}",}}'
        for name, count in (("queue", 1), ("first_message", 1), ("between_messages", messages - 1), ("request", 1)):
            self.assertEqual(found.get(f"penstock_{name}_seconds_count" + ours, 0), count, name)
        self.assertEqual(found[f'penstock_requests_total{{model_name="tiny",model_version="1.0",protocol="{protocol}",code="OK",}}'], 1)

    def test_a_sample_is_written_as_torchserve_writes_it(self):
        self.infer("GET", "/ping")
        wait_until(lambda: f'Requests2XX{{{HOST}}} 0.0' not in self.metrics("?name[]=Requests2XX").text, what="the ping is counted")
        self.assertRegex(self.metrics("?name[]=Requests2XX").text,
                         r'\nRequests2XX\{Level="Host",Hostname="[^"]+",\} [1-9][0-9]*\.0\n$')

    def test_http_and_grpc_requests_count_alike(self):
        found = self.grown(lambda: self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "a", "max_tokens": 3})))
        self.assertEqual(self.classes(found), {"Requests2XX": 1})
        self.assert_inference(found, "http", 3)
        found = self.grown(lambda: self.client.predict(request(prompt="a", max_tokens=3)))
        self.assertEqual(self.classes(found), {"Requests2XX": 1})
        self.assert_inference(found, "grpc", 3)
        found = self.grown(lambda: self.client.stream_text(request(prompt="a", max_tokens=4)))
        self.assertEqual(self.classes(found), {"Requests2XX": 1})
        self.assert_inference(found, "grpc", 4)

    def test_refusals_count_by_their_class(self):
        def refused_by_grpc():
            with self.assertRaises(grpc.RpcError):
                self.client.predict(request(model="nobody", prompt="a"))

        self.assertEqual(self.classes(self.grown(refused_by_grpc)), {"Requests4XX": 1})
        self.assertEqual(self.classes(self.grown(lambda: self.infer("POST", "/predictions/nobody", "a"))), {"Requests4XX": 1})
        self.assertEqual(self.classes(self.grown(lambda: self.infer("POST", "/wfpredict/w", "a"))), {"Requests5XX": 1})
        self.assertEqual(self.classes(self.grown(lambda: self.send_raw(b"nonsense\r\n\r\n"))), {"Requests4XX": 1})
        self.assertEqual(self.classes(self.grown(lambda: self.listed())), {"Requests2XX": 1})
        self.assertEqual(self.classes(self.grown(lambda: self.admin("GET", "/models"))), {"Requests2XX": 1})

    def test_workers_say_how_long_they_loaded(self):
        self.assertGreater(self.samples()[f'WorkerLoadTime{{WorkerName="W-9000-tiny_1.0",{HOST}}}'], 0)


class NoMetricsListenerTest(HttpServerTest):
    arguments = ("--set", "enable_metrics_api=false")

    def test_the_listener_can_be_left_out(self):
        self.assertIsNone(self.server.metrics_address)


class NoSystemMetricsTest(HttpServerTest):
    arguments = ("--set", "disable_system_metrics=true", "--set", "metrics_mode=prometheus")

    def test_the_machine_is_not_looked_at(self):
        self.assertNotIn(f"MemoryUsed{{{HOST}}}", self.samples())
        self.assertIn("# TYPE MemoryUsed gauge", self.metrics().text)


class LegacyMetricsTest(HttpServerTest):
    arguments = ("--set", "metrics_mode=legacy")

    def test_only_the_first_three_counters_are_shown(self):
        names = {line.split()[2] for line in self.metrics().text.splitlines() if line.startswith("# TYPE")}
        self.assertEqual(names, {"ts_inference_requests_total", "ts_inference_latency_microseconds", "ts_queue_latency_microseconds"})


if __name__ == "__main__":
    unittest.main()
