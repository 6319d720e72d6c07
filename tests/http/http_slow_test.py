"""Clients that take their time, send in crumbs, or ask for the impossible."""
import json
import socket
import time

from http_case import HttpServerTest
from penstock_server import wait_until

BODY = b'{"prompt": "a", "max_tokens": 1}'
POST = b"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\n"


class SlowClientTest(HttpServerTest):
    arguments = ("--set", "http_header_timeout=1", "--set", "http_body_timeout=1")

    def assert_cut_off(self, start, crumb):
        """The server ends the connection though a byte comes every now and then."""
        with self.connect() as raw:
            raw.sendall(start)
            raw.settimeout(0.1)

            def ended():
                try:
                    raw.sendall(crumb)
                    return raw.recv(65536) == b""
                except socket.timeout:
                    return False
                except ConnectionError:
                    return True
            wait_until(ended, 30, "the connection is closed")

    def test_a_header_that_never_ends(self):
        self.assert_cut_off(POST + b"X-Slow: ", b"x")

    def test_a_first_line_that_never_ends(self):
        self.assert_cut_off(b"GET /", b"x")

    def test_a_body_that_never_ends(self):
        self.assert_cut_off(POST + b"Content-Length: 100000\r\n\r\n", b"x")

    def test_chunks_that_never_end(self):
        self.assert_cut_off(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")

    def test_a_connection_that_says_nothing_is_closed_and_a_used_one_too(self):
        with self.connect() as silent, self.connect() as used:
            used.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            data = b""
            while piece := used.recv(65536):
                data += piece
            self.assertIn(b"200 OK", data)
            self.assertEqual(silent.recv(1), b"")

    def test_a_slow_answer_is_not_cut_off(self):
        reply = self.infer("POST", "/predictions/tiny", {"prompt": "a", "max_tokens": 300, "stream": True})
        self.assertEqual(reply.status, 200)


class CrumbsTest(HttpServerTest):
    def tearDown(self):
        self.assertEqual(self.infer("POST", "/predictions/tiny", {"prompt": "still there?", "max_tokens": 2}).status, 200)

    def test_a_million_chunks_of_one_byte(self):
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"1\r\n \r\n" * 1_000_000 + b"0\r\n\r\n"
        self.assertEqual(self.send_raw(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks).status, 200)

    def test_chunks_with_broken_sizes(self):
        for size in (b"-1", b"0x1", b"fffffffffffffffff", b"ffffffffffffffff", b"1 1", b"", b"g", b"1;" + b"x" * 200000):
            with self.subTest(size=size[:20]):
                with self.connect() as raw:
                    try:
                        raw.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\na\r\n0\r\n\r\n")
                        data = raw.recv(65536)
                    except ConnectionError:
                        continue  # refused before all was sent
                self.assertRegex(data, rb"^HTTP/1\.1 4(00|13)")

    def test_trailers_without_end(self):
        with self.connect() as raw:
            raw.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
            try:
                for _ in range(100):
                    raw.sendall(b"X-Trailer: " + b"y" * 1000 + b"\r\n")
                data = raw.recv(65536)
            except ConnectionError:
                return  # refused before all was sent
        self.assertRegex(data, rb"^HTTP/1\.1 4\d\d")

    def test_numbers_beyond_all_limits(self):
        for field, value in (("max_tokens", "-1"), ("max_tokens", "0"), ("max_tokens", "99999999999999999999"), ("max_tokens", "1e400"), ("max_tokens", "1.5"),
                             ("temperature", "-1"), ("temperature", "1e308"), ("temperature", "NaN"), ("temperature", "-Infinity"), ("top_p", "-0.1"),
                             ("top_p", "1e-400000"), ("top_k", "-2147483649"), ("seed", "18446744073709551616"), ("seed", "-1")):
            with self.subTest(field=field, value=value):
                reply = self.infer("POST", "/predictions/tiny", '{"prompt": "a", "max_tokens": 1, "%s": %s}' % (field, value))
                self.assertIn(reply.status, (200, 400), reply.text)
                if reply.status == 400:
                    self.assertIn(reply.json["type"], ("BadRequestException",))

    def test_numbers_in_the_query(self):
        for number in ("-1", "99999999999999999999", "1e9", "0x10", "%00", "%ff", "%EF%BC%91"):
            for target in (f"/models?limit={number}", f"/models?next_page_token={number}", f"/models/tiny?customized={number}"):
                with self.subTest(target=target):
                    self.assertIn(self.admin("GET", target).status, (200, 400))

    def test_names_that_are_paths(self):
        names = ("..", ".", "%2e%2e", "..%2f..%2fetc%2fpasswd", "..%5c..%5cetc", "%2fetc%2fpasswd", "....%2f%2f", "tiny%2f..%2ftiny", "tiny%00", "%c0%ae%c0%ae", "tiny%0d%0aX:y",
                 "a" * 8000, "%ff%fe")
        for name in names:
            for method, call, target in (("POST", self.infer, f"/predictions/{name}"), ("POST", self.infer, f"/predictions/tiny/{name}"),
                                         ("POST", self.infer, f"/models/{name}/invoke"), ("GET", self.admin, f"/models/{name}"),
                                         ("GET", self.admin, f"/models/tiny/{name}"), ("PUT", self.admin, f"/models/{name}?min_worker=1"),
                                         ("PUT", self.admin, f"/models/tiny/{name}/set-default"), ("DELETE", self.admin, f"/models/{name}")):
                with self.subTest(method=method, target=target[:80]):
                    reply = call(method, target, "x" if method == "POST" else None)
                    self.assertIn(reply.status, (400, 404, 405), reply.text)
                    json.loads(reply.text)
                    self.assertNotIn("X", reply.headers)

    def test_many_headers_and_one_long_one(self):
        for lines in (b"X: y\r\n" * 100000, b"X: " + b"y" * (1 << 20) + b"\r\n", b"X" * (1 << 20) + b": y\r\n", b" folded\r\n" * 10000):
            with self.connect() as raw:
                try:
                    raw.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
                    data = raw.recv(65536)
                except ConnectionError:
                    continue  # refused before all was sent
            self.assertRegex(data, rb"^HTTP/1\.1 4\d\d")
        with self.connect() as raw:
            raw.sendall(b"GET /" + b"a" * (1 << 20))
            time.sleep(0.1)
            self.assertRegex(raw.recv(65536), rb"^HTTP/1\.1 4\d\d")
