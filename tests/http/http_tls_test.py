"""TLS and certificates of clients, over HTTP and gRPC; plain text where TLS is expected."""
import http.client
import json
import ssl
import time
import unittest

import grpc

from http_case import Reply
from penstock_server import FAKE_WORKER, FREE_PORTS, MANAGEMENT, run_penstock, wait_until
from tls_case import Certificates, TlsServerTest


class TlsTest(TlsServerTest):
    def test_predictions_come_in_one_piece_and_in_chunks(self):
        body = {"prompt": "a b c", "max_tokens": 50, "temperature": 0}
        whole = self.infer("POST", "/predictions/tiny", body)
        self.assertEqual(whole.status, 200, whole.text)
        streamed = self.infer("POST", "/predictions/tiny", {**body, "stream": True})
        self.assertEqual((streamed.headers["Transfer-Encoding"], streamed.text), ("chunked", whole.text))
        self.assertEqual(self.admin("GET", "/models").status, 200)

    def test_one_connection_carries_many_requests(self):
        connection = http.client.HTTPSConnection(*self.host_port(self.server.http_address), timeout=20, context=self.certificates.context())
        for _ in range(20):
            connection.request("POST", "/predictions/tiny", json.dumps({"prompt": "a " * 1000, "max_tokens": 2}))
            response = connection.getresponse()
            self.assertEqual(response.status, 200)
            self.assertTrue(response.read())
        self.assertIsNotNone(connection.sock, "the server kept it open")
        connection.close()

    def test_plain_http_is_told_what_is_wrong(self):
        with self.connect_plain() as raw:
            raw.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            response = http.client.HTTPResponse(raw)
            response.begin()
            reply = Reply(response)
        self.assert_error(reply, 403, "BadRequestException", "HTTPS requests only")

    def test_old_protocols_are_refused(self):
        context = self.certificates.context()
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.connect(context=context)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.certificates.context()
            context.minimum_version = context.maximum_version = version
            self.connect(context=context).close()

    def test_requests_whose_end_is_ambiguous_are_refused_inside_tls_too(self):
        for lines in (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 1\r\nContent-Length: 2\r\n",
                      b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding : chunked\r\n", b"Content-Length: -1\r\n"):
            with self.subTest(lines=lines), self.connect() as raw:
                raw.sendall(b"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n0\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
                data = b""
                while piece := raw.recv(65536):
                    data += piece
                self.assertTrue(data.startswith(b"HTTP/1.1 400"), data)
                self.assertEqual(data.count(b"HTTP/1.1 "), 1, data)

    def test_noise_costs_its_own_connection_only(self):
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        silent = [self.connect_plain() for _ in range(50)]
        for raw in silent[::2]:
            raw.sendall(hello[:5])
        for noise in (hello + b"\x00" * 600, b"\x16\x03\x01\xff\xff" + b"A" * 70000, b"\x80\x2e\x01\x00\x02" + b"\x00" * 60, b"\x00" * 5000):
            with self.connect_plain() as raw:
                try:
                    raw.sendall(noise)
                    self.assertNotIn(b"200 OK", raw.recv(65536))
                except ConnectionError:
                    pass
        self.assertEqual(self.infer("GET", "/ping").status, 200)
        for raw in silent:
            raw.close()

    def test_what_is_too_long_is_refused(self):
        reply = self.infer("POST", "/predictions/tiny", b" " * 7000000)
        self.assert_error(reply, 413, "RequestEntityTooLargeException", "max_request_size")

    @unittest.skipUnless(FAKE_WORKER, "reads the fake worker's log")
    def test_a_client_that_goes_stops_the_work(self):
        body = json.dumps({"prompt": "[hang] x", "max_tokens": 3000, "stream": True}).encode()
        for says_farewell in (True, False):
            before = self.server.worker_log().count("cancelled after")
            raw = self.connect()
            raw.sendall(b"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(0.3)
            if says_farewell:
                raw.settimeout(0.2)
                try:
                    raw.unwrap()
                except OSError:
                    pass
            raw.close()
            wait_until(lambda: self.server.worker_log().count("cancelled after") > before, 15, "the worker was told")

    def test_grpc_speaks_tls(self):
        with self.channel(self.server.address) as channel:
            self.assertEqual(self.ping(channel), grpc.StatusCode.OK)
        code, stdout, stderr = run_penstock("generate", "--address", self.server.address, "--ca-file", self.certificates.path("ca.pem"), "--model", "tiny",
                                            "--prompt", "a b", "--max-tokens", "3")
        self.assertEqual((code, stdout != ""), (0, True), stderr)
        with grpc.insecure_channel(self.server.address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]) as channel:
            self.assertEqual(self.ping(channel), grpc.StatusCode.UNAVAILABLE)


class ClientCertificateTest(TlsServerTest):
    more = ("--set", "client_ca_file={ca}")

    def test_http_asks_for_a_certificate_of_the_authority(self):
        for address in (self.server.http_address, self.server.http_management_address):
            self.assertEqual(self.call(address, "GET", "/api-description").status, 200)
            for client in (None, "stranger"):
                with self.subTest(client=client), self.assertRaises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                    self.call(address, "GET", "/api-description", client=client)

    def test_grpc_asks_for_a_certificate_of_the_authority(self):
        for client, code in (("client", grpc.StatusCode.OK), (None, grpc.StatusCode.UNAVAILABLE), ("stranger", grpc.StatusCode.UNAVAILABLE)):
            with self.subTest(client=client), self.channel(self.server.address, client) as channel:
                self.assertEqual(self.ping(channel), code)
        with self.channel(self.server.management_address) as channel, self.assertRaises(grpc.RpcError) as raised:
            channel.unary_unary(MANAGEMENT + "ListModels", request_serializer=lambda m: m, response_deserializer=lambda m: m)(b"", timeout=20)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)


class TlsTokenTest(TlsServerTest):
    more = ("--set", "disable_token_authorization=false")

    def test_tokens_are_asked_for_inside_tls(self):
        key = json.loads((self.server.folder / "key_file.json").read_text())["inference"]["key"]
        self.assert_error(self.infer("GET", "/ping"), 400, "InvalidKeyException", "Token Authorization failed")
        self.assertEqual(self.infer("GET", "/ping", headers=(("Authorization", "Bearer " + key),)).status, 200)
        with self.channel(self.server.address) as channel:
            self.assertEqual(self.ping(channel), grpc.StatusCode.PERMISSION_DENIED)
            self.assertEqual(self.ping(channel, (("authorization", "Bearer " + key),)), grpc.StatusCode.OK)


class TlsStartTest(unittest.TestCase):
    def test_files_that_are_wrong_stop_the_start_in_one_sentence(self):
        made = Certificates()
        self.addCleanup(made.close)
        model = made.folder / "m"
        model.mkdir()
        (model / "config.json").write_text("{}")
        (model / "model-config.yaml").write_text("minWorkers: 1\ndeviceType: cpu\n")
        good = {"certificate_file": made.path("server.pem"), "private_key_file": made.path("server.key"), "inference_address": "https://127.0.0.1:0"}
        for change, words in (({"private_key_file": made.path("client.key")}, ("client.key: is not the key of the certificate in", "server.pem")),
                              ({"certificate_file": made.path("none.pem")}, ("key 'certificate_file'", "none.pem")),
                              ({"client_ca_file": made.path("server.key")}, ("key 'client_ca_file'", "expected certificates in PEM form")),
                              ({"certificate_file": ""}, ("key 'inference_address': TLS needs certificate_file and private_key_file",))):
            settings = [word for key, value in {**good, **change}.items() for word in ("--set", f"{key}={value}")]
            code, _, stderr = run_penstock("serve", "--models", f"m={model}", "--port", "0", *FREE_PORTS, *settings, cwd=made.folder)
            with self.subTest(change=change):
                self.assertNotEqual(code, 0)
                for word in words:
                    self.assertIn(word, stderr)
