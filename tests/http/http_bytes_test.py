"""Predictions over HTTP by a handler that takes bytes: the body reaches it with its type and headers, its answer comes back with its own."""
import http.client
import io
import json
import socket

from http_case import HttpServerTest
from penstock_server import wait_until


class Said:
    """What a server has said, in place of its socket."""

    def __init__(self, data):
        self.data = data

    def makefile(self, _mode):
        return io.BytesIO(self.data)


class HttpBytesTest(HttpServerTest):
    config = "handler: torchscript\n"
    stages = 1

    def post(self, body=b"hi", **headers):
        return self.infer("POST", "/predictions/tiny", body, {k.replace("_", "-"): v for k, v in headers.items()}.items())

    def test_the_body_is_a_part_with_its_content_type(self):
        raw = bytes(range(256))
        reply = self.post(raw, Content_Type="image/png")
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "text/plain"))
        self.assertEqual(reply.body, b"body [image/png] " + raw + b"\n")
        self.assertEqual(reply.headers["x-known-id"], reply.headers["x-request-id"])
        self.assertNotEqual(self.post().headers["x-request-id"], reply.headers["x-request-id"])

    def test_request_headers_reach_the_handler(self):
        self.assertIn("X-Mine: a b\n", self.post(x_rule="headers", X_Mine="a b").text)

    def test_a_handlers_status_and_body_are_the_answers(self):
        for status in (201, 404, 503):
            reply = self.post(x_rule=f"status {status}")
            self.assertEqual((reply.status, reply.text), (status, "body [] hi\n"))

    def test_a_status_without_a_body_ends_with_its_headers(self):
        for status in (204, 304):
            reply = self.post(x_rule=f"status {status}")
            self.assertEqual((reply.status, reply.body), (status, b""))
            asked = b"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\nx-rule: status %d\r\nContent-Length: 2\r\n\r\nhi" % status
            self.assertEqual(self.answers(asked + b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), [status, 200])

    def test_a_status_that_is_none_is_the_handlers_fault(self):
        for status in (-1, 0, 100, 101, 600, 99999):
            self.assert_error(self.post(x_rule=f"status {status}"), 500, "InternalServerException", f"status {status}; expected one of HTTP")

    def test_head_gets_the_headers_alone(self):
        for rule in ("", "pieces", "status 201"):
            asked = b"HEAD /predictions/tiny HTTP/1.1\r\nHost: x\r\nx-rule: %s\r\nContent-Length: 2\r\n\r\nhi" % rule.encode()
            ping = b"HEAD /ping HTTP/1.1\r\nHost: x\r\n\r\n"
            self.assertEqual(self.answers(asked + ping + b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", methods=("HEAD", "HEAD", "GET")),
                             [201 if rule == "status 201" else 200, 200, 200])
        reply = self.infer("HEAD", "/ping")
        self.assertEqual((reply.status, reply.body), (200, b""))
        self.assertGreater(int(reply.headers["Content-Length"]), 0)
        self.assertEqual(self.infer("HEAD", "/nothing").status, 404)

    def answers(self, data, methods=("POST", "GET")):
        """The statuses of all answers on one connection, each of which must begin where the one before it ends."""
        with self.connect() as raw:
            raw.sendall(data)
            said = b""
            while piece := raw.recv(65536):
                said += piece
        statuses = []
        for method in methods:
            response = http.client.HTTPResponse(Said(said), method=method)
            response.begin()
            statuses.append(response.status)
            said = response.fp.read()[int(response.headers["Content-Length"]) if method != "HEAD" and response.status not in (204, 304) else 0:]
        self.assertEqual(said, b"")
        return statuses

    def test_pieces_come_as_chunks(self):
        reply = self.post(x_rule="pieces")
        self.assertEqual((reply.status, reply.headers["Transfer-Encoding"], reply.text), (200, "chunked", "body [] hi\n"))
        old = self.send_raw(b"POST /predictions/tiny HTTP/1.0\r\nx-rule: pieces\r\nContent-Length: 2\r\n\r\nhi")
        self.assertEqual((old.status, old.text, old.headers["Content-Length"]), (200, "body [] hi\n", "11"))

    def test_an_answer_that_breaks_off_says_so_in_its_last_chunk(self):
        reply = self.post(x_rule="break")
        self.assertEqual(reply.status, 200)
        self.assertTrue(reply.text.startswith("begun\n"))
        self.assertIn("told to break", reply.text)
        self.assert_error(self.post(x_rule="fail"), 500, "InternalServerException", "told to fail")

    def test_a_handlers_headers_cannot_break_the_protocol(self):
        reply = self.post(x_rule="head")
        self.assertEqual(reply.text, "body [] hi\n")
        self.assertEqual((reply.headers["X-Good"], reply.headers["X-Split"], reply.headers["Set-Cookie"]), ("1", None, None))
        self.assertEqual(reply.headers["Content-Length"], "11")

    def test_a_client_that_goes_cancels_in_the_handler(self):
        with self.connect() as raw:
            raw.sendall(b"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\nx-rule: hang\r\nContent-Length: 2\r\n\r\nhi")
            self.assertIn(b"200 OK", raw.recv(65536))
            raw.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: "cancelled" in self.server.worker_log(), what="the handler's word that it was cancelled")


class HttpSmallAnswersTest(HttpServerTest):
    config = "handler: torchscript\n"
    stages = 1
    arguments = ("--set", "max_response_size=20")

    def test_an_answer_above_max_response_size_is_refused(self):
        self.assertEqual(self.infer("POST", "/predictions/tiny", b"hi").status, 200)
        reply = self.infer("POST", "/predictions/tiny", b"x" * 30)
        self.assert_error(reply, 500, "InternalServerException", "longer than 20 bytes (max_response_size)")
        self.assertNotIn("Retry-After", reply.headers, "another try would get the same")


class HttpLongTextTest(HttpServerTest):
    arguments = ("--set", "max_response_size=20")

    def test_a_text_above_max_response_size_is_refused_unless_it_is_streamed(self):
        body = {"prompt": "abc", "max_tokens": 30}
        tensors = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [json.dumps(body)]}]}
        for reply in (self.infer("POST", "/predictions/tiny", body), self.infer("POST", "/v2/models/tiny/infer", tensors),
                      self.infer("POST", "/v1/models/tiny:predict", {"instances": [body]})):
            self.assert_error(reply, 500, "InternalServerException", "longer than 20 bytes (max_response_size)")
            self.assertNotIn("Retry-After", reply.headers, "another try would get the same")
        self.assertEqual(self.infer("POST", "/predictions/tiny", {**body, "stream": True}).status, 200)
