"""Predictions over HTTP: texts, chunks, errors, and clients that go."""
import json
import re
import time
import unittest

from http_case import HttpServerTest
from penstock_server import FAKE_WORKER, request, wait_until


class PredictionsTest(HttpServerTest):
    def test_ping_is_torchserves(self):
        for method in ("GET", "POST"):
            reply = self.infer(method, "/ping")
            self.assertEqual((reply.status, reply.json), (200, {"status": "Healthy"}))

    def test_every_answer_has_torchserves_headers(self):
        reply = self.infer("GET", "/ping")
        self.assertRegex(reply.headers["x-request-id"], r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
        self.assertEqual(reply.headers["Pragma"], "no-cache")
        self.assertEqual(reply.headers["Cache-Control"], "no-cache; no-store, must-revalidate, private")
        self.assertEqual(reply.headers["Expires"], "Thu, 01 Jan 1970 00:00:00 UTC")

    def test_a_prediction_is_the_text_that_grpc_gives(self):
        body = {"prompt": "a b c", "max_tokens": 7, "temperature": 0}
        text = self.client.predict(request(**body)).prediction.decode()
        for target in ("/predictions/tiny", "/predictions/tiny/1.0", "/models/tiny/invoke"):
            reply = self.infer("POST", target, body)
            self.assertEqual((reply.status, reply.text), (200, text), target)

    def test_a_priority_is_one_of_three(self):
        body = {"prompt": "a b c", "max_tokens": 2}
        self.assertEqual(self.infer("POST", "/predictions/tiny", body, {"X-Priority": "high"}).status, 200)
        self.assert_error(self.infer("POST", "/predictions/tiny", body, {"X-Priority": "urgent"}), 400, "BadRequestException",
                          "x-priority: expected low, normal or high, found 'urgent'")

    def test_a_bare_prompt_needs_no_json(self):
        self.assertEqual(self.infer("POST", "/predictions/tiny", "a b").status, 200)

    def test_a_stream_comes_in_chunks_with_the_same_text(self):
        body = {"prompt": "a b c", "max_tokens": 7, "temperature": 0}
        whole = self.infer("POST", "/predictions/tiny", body).text
        reply = self.infer("POST", "/predictions/tiny", {**body, "stream": True})
        self.assertEqual((reply.status, reply.headers["Transfer-Encoding"], reply.text), (200, "chunked", whole))

    @unittest.skipUnless(FAKE_WORKER, "counts the fake worker's pieces")
    def test_there_is_one_chunk_for_each_piece_and_they_come_while_the_rest_is_made(self):
        body = json.dumps({"prompt": "a b c", "max_tokens": 7, "stream": True}).encode()
        with self.connect() as raw:
            raw.sendall(b"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            data = b""
            while b"\r\n0\r\n\r\n" not in data:
                data += raw.recv(65536)
        chunks = re.findall(rb"([0-9a-f]+)\r\n(.*?)\r\n", data.split(b"\r\n\r\n", 1)[1])
        self.assertEqual([(int(size, 16), text) for size, text in chunks if size != b"0"], [(2, w) for w in (b"a ", b"b ", b"c ") * 2] + [(2, b"a ")])

    def test_a_client_of_http_1_0_gets_a_stream_in_one_piece(self):
        body = b'{"prompt": "a b", "max_tokens": 4, "stream": true}'
        reply = self.send_raw(b"POST /predictions/tiny HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.assertEqual(reply.status, 200)
        self.assertNotIn("Transfer-Encoding", reply.headers)
        self.assertTrue(reply.text)

    def test_errors_have_torchserves_body(self):
        cases = [
            ("POST", "/predictions/huge", "x", 404, "ModelNotFoundException", "huge"),
            ("POST", "/predictions/tiny/7", "x", 404, "ModelVersionNotFoundException", "7"),
            ("POST", "/predictions/tiny", {"prompt": "x", "temperature": 9}, 400, "BadRequestException", "temperature"),
            ("POST", "/predictions/tiny", {"prompt": "x", "stream": "yes"}, 400, "BadRequestException", "stream"),
            ("POST", "/predictions/tiny", '{"prompt": "x"', 400, "BadRequestException", ""),
            ("POST", "/predictions/tiny", b"\xff\xfe", 400, "BadRequestException", ""),
            ("POST", "/predictions/tiny", None, 400, "BadRequestException", "prompt"),
            ("GET", "/nothing", None, 404, "ResourceNotFoundException", "not found"),
            ("GET", "/wfpredict/x", None, 405, "MethodNotAllowedException", "not allowed"),
            ("POST", "/wfpredict/x", None, 501, "NotImplementedException", "workflows"),
            ("POST", "/predictions/%zz", "x", 400, "BadRequestException", "%"),
            ("POST", "/predictions/..%2f..%2fetc", "x", 404, "ModelNotFoundException", "../../etc"),
        ]
        for method, target, body, status, kind, word in cases:
            with self.subTest(target=target, body=body):
                self.assert_error(self.infer(method, target, body), status, kind, word)

    def test_the_description_is_made_of_the_routes_that_exist(self):
        described = self.infer("GET", "/api-description").json
        self.assertEqual(described["openapi"], "3.0.1")
        self.assertEqual(described, self.infer("OPTIONS", "/").json)
        for path, operations in described["paths"].items():
            for method in operations:
                reply = self.infer(method.upper(), path.replace("{model_name}", "nobody").replace("{model_version}", "1.0")
                                   .replace("{url_path}", "v1/completions"))
                self.assertNotIn(reply.json.get("type"), ("ResourceNotFoundException", "MethodNotAllowedException"), (method, path))

    def test_one_connection_carries_many_requests(self):
        import http.client
        connection = http.client.HTTPConnection(self.server.http_address, timeout=20)
        for _ in range(20):
            connection.request("POST", "/predictions/tiny", json.dumps({"prompt": "a", "max_tokens": 2}))
            response = connection.getresponse()
            self.assertEqual(response.status, 200)
            self.assertTrue(response.read())
        sock = connection.sock
        self.assertIsNotNone(sock, "the server kept it open")
        connection.close()


@unittest.skipUnless(FAKE_WORKER, "needs a worker that fails on request, and its log")
class TroubleTest(HttpServerTest):
    config = "jobQueueSize: 1\nhandler:\n  max_concurrent: 1\n"
    environment = {"FAKE_WORKER_STEP_MS": "10"}.items()

    def open_stream(self, prompt, tokens=3000):
        body = json.dumps({"prompt": prompt, "max_tokens": tokens, "stream": True}).encode()
        raw = self.connect()
        raw.sendall(b"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return raw

    def wait_free(self):
        wait_until(lambda: self.infer("POST", "/predictions/tiny", {"prompt": "a", "max_tokens": 1}).status == 200, 15, "the worker is free again")

    def test_a_client_that_goes_stops_the_work(self):
        for wait_for_a_chunk in (True, False):
            before = self.server.worker_log().count("cancelled after")
            raw = self.open_stream("a b")
            if wait_for_a_chunk:
                raw.recv(1000)
            else:
                time.sleep(0.2)
            raw.close()
            wait_until(lambda: self.server.worker_log().count("cancelled after") > before, 10, "the worker hears of it")
            self.wait_free()

    def test_a_client_that_goes_after_it_sent_more_stops_the_work(self):
        before = self.server.worker_log().count("cancelled after")
        raw = self.open_stream("[hang]")
        time.sleep(0.2)
        raw.sendall(b"GET /ping HTTP/1.1\r\n")
        time.sleep(0.2)
        raw.close()
        wait_until(lambda: self.server.worker_log().count("cancelled after") > before, 10, "the worker hears of it")
        self.wait_free()

    def test_an_error_after_the_first_chunk_is_the_last_chunk(self):
        raw = self.open_stream("a b")
        data = raw.recv(1000)
        import os
        import signal
        os.kill(self.server.ranks()[1], signal.SIGKILL)
        while not data.endswith(b"0\r\n\r\n"):
            piece = raw.recv(65536)
            self.assertTrue(piece, data)
            data += piece
        raw.close()
        self.assertIn(b'"code": 503', data)
        self.assertIn(b"SIGKILL", data)
        self.wait_free()

    def test_an_error_before_the_first_chunk_has_its_status(self):
        self.assert_error(self.infer("POST", "/predictions/tiny", {"prompt": "[error] x", "stream": True}), 500, "InternalServerException", "told to fail")

    def test_a_full_queue_is_429_and_says_when_to_try_again(self):
        raws = [self.open_stream("[hang] x")]
        time.sleep(0.3)
        raws.append(self.open_stream("[hang] x"))
        time.sleep(0.3)
        reply = self.infer("POST", "/predictions/tiny", {"prompt": "x"})
        self.assert_error(reply, 429, "ServiceUnavailableException", "queue is full")
        self.assertEqual(reply.headers["Retry-After"], "1")
        for raw in raws:
            raw.close()
        self.wait_free()
