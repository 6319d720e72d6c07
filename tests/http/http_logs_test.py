"""Log files where TorchServe has them, in its forms."""
import json
import os
import unittest

import grpc
from log_case import LogServerTest
from penstock_server import request, wait_until

TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"


class LogFilesTest(LogServerTest):
    def test_requests_are_in_the_access_log(self):
        self.infer("POST", "/predictions/tiny?a=%22b", json.dumps({"prompt": "a", "max_tokens": 2}))
        line = self.line_of("access_log.log", r"/predictions/tiny\?a")
        self.assertRegex(line, TIME + r' - /127\.0\.0\.1:\d+ "POST /predictions/tiny\?a=%22b HTTP/1\.1" 200 \d+$')
        self.client.predict(request(prompt="a", max_tokens=2))
        method = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
        self.assertRegex(self.line_of("access_log.log", method), TIME + rf' - /127\.0\.0\.1:\d+ "gRPC {method} HTTP/2\.0" 0 \d+$')

    def test_a_typed_generation_is_there_like_the_others(self):
        method = "/penstock.v1.Generate/Generate"
        call = self.client.channel.unary_stream(method, request_serializer=lambda m: m, response_deserializer=lambda m: m)
        list(call(b"\x0a\x04tiny\x1a\x01a\x32\x02\x08\x02", timeout=20))  # model "tiny", text "a", sampling.max_tokens 2
        self.assertRegex(self.line_of("access_log.log", method), TIME + rf' - /127\.0\.0\.1:\d+ "gRPC {method} HTTP/2\.0" 0 \d+$')

    def test_failures_are_there_with_their_codes(self):
        self.infer("POST", "/predictions/nobody", "a")
        self.assertRegex(self.line_of("access_log.log", "/predictions/nobody"), r'HTTP/1\.1" 404 \d+$')
        with self.assertRaises(grpc.RpcError):
            self.client.stream_text(request(model="nobody", prompt="a"))
        self.assertRegex(self.line_of("access_log.log", "StreamPredictions"), r'HTTP/2\.0" 5 \d+$')

    def test_a_client_that_goes_is_no_failure_of_the_server(self):
        body = json.dumps({"prompt": "a", "max_tokens": 3000}).encode()
        with self.connect() as raw:
            raw.sendall(b"POST /predictions/tiny?gone HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            wait_until(lambda: self.samples().get('penstock_requests_running{model_name="tiny",model_version="1.0",}'), what="the request runs")
        self.assertRegex(self.line_of("access_log.log", r"/predictions/tiny\?gone"), r'HTTP/1\.1" 499 \d+$')

    def test_the_servers_own_log_is_a_file_too(self):
        self.assertRegex(self.line_of("ts_log.log", "is ready"), TIME + r" \[INFO \] \d+ penstock\.serve - model 'tiny': worker group 0 is ready")

    def test_what_workers_print_is_in_one_file(self):
        self.client.predict(request(prompt="a", max_tokens=2))
        self.line_of("model_log.log", TIME + r" \[INFO \] W-9000-tiny_1\.0-stdout MODEL_LOG - request \d+ finished after 2 steps$")

    def test_metrics_are_lines(self):
        self.client.predict(request(prompt="a", max_tokens=2))
        self.line_of("metrics/ts_metrics.log", TIME + r" - MemoryUsed\.Megabytes:[\d.]+\|#Level:Host\|#hostname:[^,]+,timestamp:\d+$")
        self.line_of("metrics/ts_metrics.log", r"Requests2XX\.Count:1\.0\|#Level:Host\|#hostname:")
        self.line_of("metrics/ts_metrics.log", r"QueueTime\.Milliseconds:[\d.e-]+\|#Level:Host\|")
        self.line_of("metrics/model_metrics.log", TIME + r" - PredictionTime\.ms:[\d.]+\|#ModelName:tiny,Level:Model\|"
                     r"#hostname:[^,]+,requestID:[^,]+,timestamp:\d+$")

    def test_a_sane_request_id_is_kept(self):
        reply = self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "a", "max_tokens": 2}), {"x-request-id": "gateway:42"})
        self.assertEqual(reply.headers["x-request-id"], "gateway:42")
        self.line_of("metrics/model_metrics.log", "requestID:gateway:42,")
        for bad in ("a b", "x" * 129, 'a"b'):
            self.assertRegex(self.infer("GET", "/ping", headers={"x-request-id": bad}).headers["x-request-id"], r"^[0-9a-f-]{36}$")


class JsonLogTest(LogServerTest):
    arguments = ("--set", "access_log=json", "--set", "metrics_mode=prometheus")

    def test_the_access_log_may_be_json(self):
        self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "a", "max_tokens": 2}), {"x-request-id": "id-1"})
        entry = json.loads(self.line_of("access_log.log", "/predictions/tiny"))
        self.assertEqual([entry[key] for key in ("protocol", "method", "path", "status", "request_id")],
                         ["http", "POST", "/predictions/tiny", 200, "id-1"])
        self.assertGreater(entry["ms"], 0)
        self.assertRegex(entry["peer"], r"^127\.0\.0\.1:\d+$")
        self.assertEqual(self.lines("metrics/model_metrics.log"), [], "metrics_mode=prometheus writes no lines")


class FullDiskTest(LogServerTest):
    @classmethod
    def prepare(cls):
        (cls.logs / "metrics").mkdir(parents=True)
        for name in ("access_log.log", "ts_log.log", "metrics/ts_metrics.log", "metrics/model_metrics.log"):
            os.symlink("/dev/full", cls.logs / name)

    def test_a_full_disk_never_stops_serving(self):
        for _ in range(20):
            self.assertEqual(self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "a", "max_tokens": 2})).status, 200)
            self.client.predict(request(prompt="a", max_tokens=2))
        wait_until(lambda: self.samples()["penstock_log_lines_lost_total"] >= 40, what="lost lines are counted")
        self.assertIn("its lines are lost until it can be written", self.server.stderr)


if __name__ == "__main__":
    unittest.main()
