"""Requests that cannot be answered: each has its code and a message that helps; the server survives all of them."""
import json
import os
import socket
import unittest

import grpc

from penstock_server import FAKE_WORKER, INFERENCE, ServerTest, request, wait_until, wire

Code = grpc.StatusCode


class StatusCodesTest(ServerTest):
    def assert_invalid(self, message, *words):
        self.assert_fails(Code.INVALID_ARGUMENT, lambda: self.client.stream(message), *words)
        self.assert_fails(Code.INVALID_ARGUMENT, lambda: self.client.predict(message), *words)

    def test_an_unknown_model_is_not_found_and_the_known_ones_are_listed(self):
        self.assert_fails(Code.NOT_FOUND, lambda: self.client.stream(request(model="huge", prompt="x")), "huge", "tiny")

    def test_an_unknown_version_is_not_found(self):
        self.assert_fails(Code.NOT_FOUND, lambda: self.client.predict(request(version="7", prompt="x")), "7", "1.0")

    def test_an_empty_model_name_is_invalid(self):
        self.assert_invalid(request(model="", prompt="x"), "model_name")

    def test_the_input_key_data_is_required(self):
        self.assert_invalid(wire.PredictionsRequest(model_name="tiny"), "data")

    def test_another_input_key_is_refused_by_name(self):
        self.assert_invalid(wire.PredictionsRequest(model_name="tiny", input={"data": b"x", "max_tokens": b"3"}), "max_tokens")

    def test_bad_values_are_refused_by_name(self):
        for field, value in (("temperature", 3), ("temperature", "hot"), ("top_p", 0), ("top_k", -1), ("max_tokens", 0), ("seed", -1),
                             ("stop", [""])):
            with self.subTest(field=field, value=value):
                self.assert_invalid(request(prompt="x", **{field: value}), field)

    def test_an_unknown_field_is_refused_with_the_nearest_known_one(self):
        self.assert_invalid(request(prompt="x", max_token=3), "max_token", "max_tokens")

    def test_an_empty_prompt_is_refused(self):
        self.assert_invalid(request(text=""), "prompt")
        self.assert_invalid(request(prompt=""), "prompt")

    def test_broken_json_is_refused(self):
        self.assert_invalid(request(text='{"prompt": "x"'))

    def test_text_that_is_not_utf8_is_refused(self):
        self.assert_invalid(request(text=b"\xff\xfe\xfd"))

    def test_a_prompt_longer_than_the_model_allows_is_refused_by_the_worker(self):
        self.assert_invalid(request(prompt="word " * 100000), "prompt")

    def test_a_request_over_the_size_limit_is_refused(self):
        self.assert_fails(Code.RESOURCE_EXHAUSTED, lambda: self.client.predict(request(prompt="x" * 7000000)))

    def test_an_unknown_method_is_unimplemented(self):
        call = self.client.channel.unary_unary(INFERENCE + "Explain")
        self.assert_fails(Code.UNIMPLEMENTED, lambda: call(b"", timeout=5))

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that fails on request")
    def test_an_error_of_the_worker_reaches_the_client(self):
        self.assert_fails(Code.INTERNAL, lambda: self.client.stream(request(prompt="[error] x")), "told to fail")


class GarbageTest(ServerTest):
    def tearDown(self):
        self.assertTrue(self.client.stream_text(request(prompt="still there?", max_tokens=3)), "the server must survive")

    def connect(self):
        host, port = self.server.address.rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=10)

    def test_random_bytes_on_the_port(self):
        for size in (1, 24, 5000):
            with self.connect() as raw:
                raw.sendall(os.urandom(size))

    def test_a_preface_followed_by_nonsense(self):
        with self.connect() as raw:
            raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(4096))

    def test_http_1_on_the_port(self):
        with self.connect() as raw:
            raw.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")

    def test_connections_that_say_nothing(self):
        self.silent = [self.connect() for _ in range(50)]
        self.addCleanup(lambda: [s.close() for s in self.silent])

    def test_bytes_that_are_no_message(self):
        for junk in (b"\xff" * 50, b"\x1a\xff\xff\xff\xff\x0f", os.urandom(200)):
            with self.assertRaises(grpc.RpcError):
                list(self.client.stream(junk))


@unittest.skipUnless(FAKE_WORKER, "needs a worker that sends nothing")
class LimitsTest(ServerTest):
    config = "jobQueueSize: 2\nresponseTimeout: 2\nhandler:\n  max_concurrent: 1\n"

    def test_a_full_queue_is_resource_exhausted(self):
        calls = [self.client.stream(request(prompt="[hang] x"), timeout=60) for _ in range(6)]
        codes = []
        for call in calls:
            with self.assertRaises(grpc.RpcError) as raised:
                next(call)
            codes.append(raised.exception.code())
            if raised.exception.code() == Code.RESOURCE_EXHAUSTED:
                self.assertIn("queue is full", raised.exception.details())
        self.assertEqual(codes.count(Code.RESOURCE_EXHAUSTED), 3, "one runs, two wait, three are refused")


@unittest.skipUnless(FAKE_WORKER, "needs a worker that can hang")
class SilentCallTest(ServerTest):
    config = "responseTimeout: 2\nhandler:\n  max_concurrent: 1\n"

    def test_a_silent_worker_costs_the_call_but_not_the_worker(self):
        before = self.server.ranks()
        self.assert_fails(Code.DEADLINE_EXCEEDED, lambda: self.client.stream(request(prompt="[hang] x")), "responseTimeout", "tiny")
        self.assertTrue(self.client.stream_text(request(prompt="a", max_tokens=2)))
        self.assertEqual(self.server.ranks(), before)


@unittest.skipUnless(FAKE_WORKER, "needs a worker that sends large pieces")
class SlowReaderTest(ServerTest):
    environment = {"FAKE_WORKER_STEP_MS": "1"}.items()

    def test_a_client_that_stops_reading_loses_its_stream_and_nobody_elses(self):
        slow = self.client.stream(request(prompt="[big] x", max_tokens=3900), timeout=60)
        next(slow)
        other = self.server.new_client()
        try:
            wait_until(lambda: "cancelled after" in self.server.worker_log(), 15, "the worker stops working for a reader that does not read")
            self.assertTrue(other.stream_text(request(prompt="a b", max_tokens=3)))
        finally:
            other.close()
        with self.assertRaises(grpc.RpcError) as raised:
            list(slow)
        self.assertEqual(raised.exception.code(), Code.RESOURCE_EXHAUSTED)
        self.assertIn("too slowly", raised.exception.details())


class JsonBodyTest(ServerTest):
    def test_max_tokens_is_obeyed(self):
        call = self.client.stream(request(text=json.dumps({"prompt": "a b c", "max_tokens": 4, "temperature": 0})))
        list(call)
        self.assertLessEqual(int(dict(call.trailing_metadata())["penstock-completion-tokens"]), 4)
