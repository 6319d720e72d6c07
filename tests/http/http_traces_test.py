"""W3C trace context, and spans for a collector."""
import http.server
import json
import re
import threading
import unittest

from http_case import HttpServerTest
from penstock_server import INFERENCE, request, wait_until, wire

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Collector:
    """Takes OTLP over HTTP in JSON."""

    def __init__(self):
        self.spans = []
        self.resources = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/json")
                for resource in body["resourceSpans"]:
                    collector.resources.append(resource["resource"])
                    for scope in resource["scopeSpans"]:
                        collector.spans += scope["spans"]
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, trace):
        return [span for span in self.spans if span["traceId"] == trace]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Collected:
    """A server with a collector."""

    @classmethod
    def setUpClass(cls):
        cls.collector = Collector()
        cls.addClassCleanup(cls.collector.close)
        cls.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": cls.collector.url}
        super().setUpClass()

    def spans_of(self, trace, count=3):
        wait_until(lambda: len(self.collector.of(trace)) >= count, what=f"{count} spans of {trace}")
        return {re.sub(".*/", "", span["name"]): span for span in self.collector.of(trace)}


class SpansTest(Collected, HttpServerTest):
    def assert_family(self, spans, root, parent):
        """A request's span below the caller's, with one for the queue and one for the worker below it."""
        top = spans[root]
        self.assertEqual((top.get("parentSpanId"), top["kind"]), (parent, 2))
        for name in ("queue", "worker"):
            self.assertEqual(spans[name]["parentSpanId"], top["spanId"])
            self.assertLessEqual(int(spans[name]["startTimeUnixNano"]), int(spans[name]["endTimeUnixNano"]))
        self.assertLessEqual(int(spans["queue"]["endTimeUnixNano"]), int(spans["worker"]["startTimeUnixNano"]) + 1000000)
        self.assertIn({"key": "penstock.model", "value": {"stringValue": "tiny"}}, spans["worker"]["attributes"])

    def test_an_http_request_is_three_spans_of_its_callers_trace(self):
        reply = self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "a", "max_tokens": 3}),
                           {"traceparent": PARENT, "tracestate": "vendor=x"})
        spans = self.spans_of(TRACE)
        self.assert_family(spans, "POST", "b7ad6b7169203331")
        self.assertEqual(spans["worker"]["traceState"], "vendor=x")
        self.assertEqual(reply.headers["traceresponse"], f"00-{TRACE}-{spans['POST']['spanId']}-01")
        self.assertIn({"key": "service.name", "value": {"stringValue": "penstock"}}, self.collector.resources[0]["attributes"])

    def test_a_grpc_request_too(self):
        trace = "1" * 32
        call = self.client.channel.unary_unary(INFERENCE + "Predictions", request_serializer=lambda m: m.SerializeToString(),
                                               response_deserializer=wire.PredictionResponse.FromString)
        call(request(prompt="a", max_tokens=2), timeout=20, metadata=(("traceparent", f"00-{trace}-b7ad6b7169203331-01"),))
        self.assert_family(self.spans_of(trace), "Predictions", "b7ad6b7169203331")

    def test_a_request_without_a_trace_begins_one(self):
        reply = self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "a", "max_tokens": 2}))
        trace = reply.headers["traceresponse"].split("-")[1]
        self.assert_family(self.spans_of(trace), "POST", None)

    def test_bad_or_unsampled_parents_are_not_followed(self):
        for bad in (PARENT.upper(), PARENT + "-00", "00-" + "0" * 32 + "-b7ad6b7169203331-01"):
            reply = self.infer("GET", "/ping", headers={"traceparent": bad})
            self.assertNotIn(bad.split("-")[1].lower(), reply.headers["traceresponse"])
        unsampled = "2" * 32
        reply = self.infer("GET", "/ping", headers={"traceparent": f"00-{unsampled}-b7ad6b7169203331-00"})
        self.assertIsNone(reply.headers["traceresponse"])

    def test_failures_are_marked(self):
        trace = "3" * 32
        self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "[error]", "max_tokens": 2}),
                   {"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        spans = self.spans_of(trace)
        self.assertEqual((spans["POST"]["status"]["code"], spans["worker"]["status"]["code"]), (2, 2))
        wait_until(lambda: self.samples()['penstock_spans_total{fate="sent",}'] >= 3, what="sent spans are counted")


class HandlerTraceTest(Collected, HttpServerTest):
    """Handlers of bytes see where in the trace they work."""
    config = "handler: torchscript\n"
    stages = 1

    def headers_seen(self, text):
        return dict(line.split(": ", 1) for line in text.splitlines())

    def test_over_http_the_handler_is_below_the_workers_span(self):
        trace = "4" * 32
        reply = self.infer("POST", "/predictions/tiny", "x", {"x-rule": "headers", "TraceParent": f"00-{trace}-b7ad6b7169203331-01", "tracestate": "vendor=x"})
        seen = self.headers_seen(reply.text)
        self.assertEqual((seen["traceparent"], seen["tracestate"]), (f"00-{trace}-{self.spans_of(trace)['worker']['spanId']}-01", "vendor=x"))
        self.assertEqual(reply.text.lower().count("traceparent:"), 1)

    def test_over_grpc_an_unsampled_caller_is_passed_through(self):
        parent = f"00-{'5' * 32}-b7ad6b7169203331-00"
        call = self.client.channel.unary_unary(INFERENCE + "Predictions", request_serializer=lambda m: m.SerializeToString(),
                                               response_deserializer=wire.PredictionResponse.FromString)
        reply = call(wire.PredictionsRequest(model_name="tiny", input={"rule": b"headers"}), timeout=20, metadata=(("traceparent", parent),))
        self.assertEqual(self.headers_seen(reply.prediction.decode())["traceparent"], parent)


class NoCollectorTest(HttpServerTest):
    arguments = ("--set", "otlp_endpoint=http://127.0.0.1:9")

    def test_a_collector_that_is_not_there_costs_spans_only(self):
        for _ in range(10):
            self.assertEqual(self.infer("GET", "/ping").status, 200)
        wait_until(lambda: self.samples()['penstock_spans_total{fate="dropped",}'] >= 10, what="dropped spans are counted")
        self.assertIn("span(s) are lost", self.server.stderr)


if __name__ == "__main__":
    unittest.main()
