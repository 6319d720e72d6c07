"""Requests to a handler that takes bytes: whatever the client's inputs are, they reach the handler, and its answer reaches the client."""
import unittest

import grpc

from penstock_server import FAKE_WORKER, ServerTest, wait_until, wire

Code = grpc.StatusCode


def inputs(**parts):
    return wire.PredictionsRequest(model_name="tiny", input={k: v if isinstance(v, bytes) else v.encode() for k, v in parts.items()})


@unittest.skipUnless(FAKE_WORKER, "played by the fake worker")
class BytesTest(ServerTest):
    config = "handler: torchscript\n"
    stages = 1

    def test_every_input_is_a_part_of_its_name(self):
        raw = bytes(range(256))
        answer = self.client.predict(inputs(data=raw, other="x"))
        self.assertEqual(answer.prediction, b"data [] " + raw + b"\nother [] x\n")
        self.assertEqual(self.client.predict(inputs()).prediction, b"")

    def test_pieces_are_streamed_and_gathered(self):
        message = inputs(rule="pieces", a="1", b="2")
        self.assertEqual([m.prediction for m in self.client.stream(message)], [b"a [] 1\n", b"b [] 2\n"])
        self.assertEqual(self.client.predict(message).prediction, b"a [] 1\nb [] 2\n")

    def test_a_handlers_status_is_the_calls_code_and_its_bytes_the_message(self):
        for status, code in ((400, Code.INVALID_ARGUMENT), (404, Code.NOT_FOUND), (429, Code.RESOURCE_EXHAUSTED), (500, Code.INTERNAL),
                             (503, Code.UNAVAILABLE), (507, Code.INTERNAL)):
            for call in (self.client.predict, self.client.stream):
                self.assert_fails(code, lambda call=call: call(inputs(rule=f"status {status}", a="why")), "a [] why")
        self.assertEqual(self.client.predict(inputs(rule="status 201", a="1")).prediction, b"a [] 1\n")

    def test_failures_and_answers_that_break_off(self):
        self.assert_fails(Code.INTERNAL, lambda: self.client.predict(inputs(rule="fail")), "told to fail")
        self.assert_fails(Code.INTERNAL, lambda: self.client.predict(inputs(rule="status 99")), "status 99")
        stream = self.client.stream(inputs(rule="break"))
        self.assertEqual(next(stream).prediction, b"begun\n")
        self.assert_fails(Code.INTERNAL, lambda: next(stream), "told to break")

    def test_an_error_that_is_no_utf8_ends_its_request_only(self):
        for _ in range(2):
            self.assert_fails(Code.INVALID_ARGUMENT, lambda: self.client.predict(inputs(rule="unspeakable")), "no word")
        self.assertEqual(self.client.predict(inputs(a="1")).prediction, b"a [] 1\n")

    def test_cancelling_reaches_the_handler(self):
        call = self.client.stream(inputs(rule="hang", a="1"))
        self.assertEqual(next(call).prediction, b"a [] 1\n")
        call.cancel()
        wait_until(lambda: "cancelled" in self.server.worker_log(), what="the handler's word that it was cancelled")

    def test_too_many_inputs_are_refused(self):
        self.assert_fails(Code.INVALID_ARGUMENT, lambda: self.client.predict(inputs(**{f"p{i}": "" for i in range(1025)})), "1025 inputs")
        self.assert_fails(Code.INVALID_ARGUMENT, lambda: self.client.predict(inputs(**{"n" * 1025: ""})), "1025 bytes")


@unittest.skipUnless(FAKE_WORKER, "played by the fake worker")
class BytesCrashTest(ServerTest):
    config = "handler: torchscript\n"
    stages = 1

    def test_a_crash_ends_its_worker_only(self):
        self.assert_fails(Code.UNAVAILABLE, lambda: self.client.predict(inputs(rule="crash")), "rank 0")
        wait_until(lambda: self.client.health("tiny") == 1, what="the restart")
        self.assertEqual(self.client.predict(inputs(a="1")).prediction, b"a [] 1\n")
