"""Predictions over HTTP by a handler that takes bytes: the body reaches it with its type and headers, its answer comes back with its own."""
import socket

from http_case import HttpServerTest
from penstock_server import wait_until


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
        self.assert_error(self.infer("POST", "/predictions/tiny", b"x" * 30), 429, "ServiceUnavailableException", "max_response_size")
