"""Bytes that no browser sends: each costs its own connection and nothing else."""
import os
import time

from http_case import HttpServerTest

BODY = b'{"prompt": "a", "max_tokens": 1}'


def post(headers, body=BODY, version=b"1.1"):
    return b"POST /predictions/tiny HTTP/" + version + b"\r\n" + headers + b"\r\n" + body


class HostileTest(HttpServerTest):
    def tearDown(self):
        self.assertEqual(self.infer("POST", "/predictions/tiny", {"prompt": "still there?", "max_tokens": 2}).status, 200)

    def assert_refused(self, data, status, word=""):
        reply = self.send_raw(data)
        self.assertEqual(reply.status, status, reply.text)
        self.assertIn(word, reply.text)
        self.assertEqual(reply.headers["Connection"], "close")

    def test_requests_whose_end_is_ambiguous_are_refused(self):
        length = b"Content-Length: %d\r\n" % len(BODY)
        host = b"Host: x\r\n"
        chunked = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"
        for headers, body in (
            (host + length + b"Transfer-Encoding: chunked\r\n", chunked),
            (host + b"Transfer-Encoding: chunked\r\n" + length, chunked),
            (host + length + b"Content-Length: 3\r\n", BODY),
            (host + length + length, BODY),
            (host + b"Content-Length: +5\r\n", BODY),
            (host + b"Content-Length: 5, 5\r\n", BODY),
            (host + b"Content-Length: 0x5\r\n", BODY),
            (host + b"Content-Length: -5\r\n", BODY),
            (host + b"Content-Length: 99999999999999999999999\r\n", BODY),
            (host + b"Transfer-Encoding: gzip, chunked\r\n", chunked),
            (host + b"Transfer-Encoding: chunked, identity\r\n", chunked),
            (host + b"Transfer-Encoding : chunked\r\n", chunked),
            (host + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunked),
            (host + host + length, BODY),
            (length, BODY),
            (host + b"Content-Length\r\n", BODY),
            (b"\x00: y\r\n" + host + length, BODY),
        ):
            with self.subTest(headers=headers):
                self.assert_refused(post(headers, body), 400)

    def test_after_a_refusal_nothing_more_is_read_from_the_connection(self):
        with self.connect() as raw:
            raw.sendall(post(b"Host: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n") + b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            data = b""
            while piece := raw.recv(65536):
                data += piece
        self.assertEqual(data.count(b"HTTP/1.1 "), 1, data)
        self.assertNotIn(b"Healthy", data)

    def test_chunked_bodies_that_are_well_formed_are_read(self):
        chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
        self.assertEqual(self.send_raw(post(b"Host: x\r\nTransfer-Encoding: chunked\r\n", chunked)).status, 200)

    def test_what_is_too_long_is_refused_by_its_length(self):
        self.assert_refused(post(b"Host: x\r\nX: " + b"y" * (1 << 20) + b"\r\nContent-Length: 1\r\n"), 431)
        self.assert_refused(post(b"Host: x\r\nContent-Length: 7000000\r\n", b""), 413, "max_request_size")

    def test_a_chunked_body_over_the_limit_is_refused(self):
        with self.connect() as raw:
            raw.sendall(post(b"Host: x\r\nTransfer-Encoding: chunked\r\n", b""))
            piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
            try:
                for _ in range(200):
                    raw.sendall(piece)
                data = raw.recv(1000)
            except ConnectionError:
                return  # refused before all was sent
        self.assertIn(b"413", data)

    def test_noise_and_other_protocols(self):
        for noise in (os.urandom(5000), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                      b"GET /ping HTTP/3.0\r\n\r\n", b"GET /ping\r\n\r\n", b"\r\n" * 5000, b"GET http://x/ping HTTP/1.1\r\nHost: x\r\n\r\n"):
            with self.connect() as raw:
                raw.sendall(noise)
                try:
                    data = raw.recv(65536)
                except ConnectionError:
                    data = b""
                self.assertTrue(data == b"" or data.startswith(b"HTTP/1."), data[:100])
                self.assertNotIn(b"200 OK", data)

    def test_connections_that_say_nothing_or_little_do_not_keep_others_out(self):
        silent = [self.connect() for _ in range(200)]
        for raw in silent[::2]:
            raw.sendall(b"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        begin = time.monotonic()
        self.assertEqual(self.infer("GET", "/ping").status, 200)
        self.assertLess(time.monotonic() - begin, 10)
        for raw in silent:
            raw.close()

    def test_deep_json_is_refused(self):
        whole = b'{"stream": true, "prompt": ' + b"[" * 20000 + b"]" * 20000 + b"}"
        for body in (whole, b'{"prompt": ' + b"[" * 20000, b'{"stream":' * 200000):
            self.assert_refused(post(b"Host: x\r\nContent-Length: %d\r\n" % len(body), body), 400)

    def test_every_route_that_reads_json_refuses_what_is_deep_or_no_text(self):
        deep = b'{"model": "tiny", "url": "x", "instances": ' + b"[" * 20000 + b"]" * 20000 + b"}"
        no_text = b'{"model": "tiny", "url": "x", "prompt": "\xff\xc0\x80\xed\xa0\x80"}'
        targets = [(self.infer, "POST", path) for path in ("/predictions/tiny", "/v2/models/tiny/infer", "/v1/models/tiny:predict", "/v1/completions",
                                                           "/v1/chat/completions", "/tokenize", "/detokenize", "/invocations", "/models/tiny/invoke")]
        for call, method, target in [*targets, (self.admin, "PUT", "/models/tiny"), (self.admin, "POST", "/models")]:
            for body in (deep, no_text):
                with self.subTest(target=target, body=body[:60]):
                    reply = call(method, target, body, {"Content-Type": "application/json"})
                    self.assertEqual(reply.status, 400, reply.text)
                    self.assertEqual(reply.headers["Connection"], "close")

    def test_two_requests_in_one_piece_are_answered_in_order(self):
        one = post(b"Host: x\r\nContent-Length: %d\r\n" % len(BODY))
        with self.connect() as raw:
            raw.sendall(one + b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            data = b""
            while piece := raw.recv(65536):
                data += piece
        self.assertEqual(data.count(b"HTTP/1.1 200 OK"), 2, data)
        self.assertLess(data.index(b"text/plain"), data.index(b"Healthy"))

    def test_a_client_may_wait_for_the_word_to_go_on(self):
        with self.connect() as raw:
            raw.sendall(post(b"Host: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n" % len(BODY), b""))
            self.assertEqual(raw.recv(25), b"HTTP/1.1 100 Continue\r\n\r\n")
            raw.sendall(BODY)
            data = b""
            while piece := raw.recv(65536):
                data += piece
        self.assertTrue(data.startswith(b"HTTP/1.1 200 OK"), data)
