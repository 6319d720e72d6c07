"""Access keys (TorchServe's tokens): every route and every RPC asks for its own, and takes no other."""
import json
import os
import stat
import unittest

import grpc

from google.protobuf import descriptor_pb2
from penstock_server import FREE_PORTS, INFERENCE, MANAGEMENT, Server, run_penstock, wait_until, wire
from torchserve_test import TorchServe
from token_case import DENIED, HEALTH, ON, REFLECTION, TokenServerTest, bearer


OPENAI = ("/v1/models", "/v1/models/tiny", "/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize")


class HttpTokenTest(TokenServerTest):
    def assert_denied(self, reply, own, path):
        """OpenAI's routes, which are opened by the inference key, refuse as OpenAI's clients expect it; all others as TorchServe does."""
        if own == "inference" and path in OPENAI:
            self.assertEqual((reply.status, reply.json), (401, {"error": {"message": DENIED, "type": "invalid_request_error", "param": None,
                                                                          "code": "invalid_api_key"}}))
            self.assertEqual(reply.headers["WWW-Authenticate"], "Bearer")
        else:
            word = "Token Authentication failed" if path == "/token" and own == "management" else DENIED
            self.assert_error(reply, 400, "InvalidKeyException", word)

    def test_every_route_refuses_every_wrong_token(self):
        for address, own in ((self.server.http_address, "inference"), (self.server.http_management_address, "management")):
            routes = self.routes(address, own)
            self.assertGreater(len(routes), 4)
            for method, path in [*routes, ("GET", "/nothing"), ("GET", "/"), ("PATCH", "/models/tiny"), ("GET", "/%zz"), ("GET", "/ping/"),
                                 ("GET", "//ping"), ("GET", "/x?/token"), ("GET", "/token/x")]:
                own_key = "API" if path == "/token" else own
                for what, value in self.wrong_values(own_key).items():
                    with self.subTest(method=method, path=path, wrong=what):
                        self.assert_denied(self.call(address, method, path, headers=(("Authorization", value),)), own, path)
                with self.subTest(method=method, path=path, wrong="missing"):
                    self.assert_denied(self.call(address, method, path), own, path)

    def test_no_route_refuses_its_own_key(self):
        for address, own in ((self.server.http_address, "inference"), (self.server.http_management_address, "management")):
            for method, path in self.routes(address, own):
                if method == "DELETE" or path == "/token":
                    continue
                with self.subTest(method=method, path=path):
                    reply = self.call(address, method, path, headers=bearer(self.key(own)))
                    self.assertNotIn("InvalidKeyException", reply.text)
                    self.assertNotIn(reply.status, (401, 429))

    def test_openais_routes_are_in_the_table(self):
        paths = [path for _, path in self.routes(self.server.http_address, "inference")]
        self.assertLessEqual({*OPENAI, "/v1/models/tiny:predict", "/v2/models/tiny/infer"}, set(paths))

    def test_bytes_that_are_no_text_and_two_headers_are_refused(self):
        good = self.key("inference").encode()
        for lines in (b"Authorization: Bearer \xff\xfe\x80", b"Authorization: Bearer " + good + b"\xff",
                      b"Authorization: Bearer " + good + b"\r\nAuthorization: Bearer " + good, b"Authorization: Bearer x\r\nAuthorization: Bearer " + good,
                      b"Proxy-Authorization: Bearer " + good, b"X: Authorization: Bearer " + good):
            reply = self.send_raw(b"GET /ping HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n\r\n")
            self.assert_error(reply, 400, "InvalidKeyException", DENIED)

    def test_a_refused_body_is_not_waited_for(self):
        reply = self.send_raw(b"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n")
        self.assert_error(reply, 400, "InvalidKeyException", DENIED)

    def test_the_word_token_in_a_header_or_a_query_opens_nothing(self):
        api = self.key("API")
        for target, headers in (("/models?x=/token", ()), ("/models", (("X-Path", "/token"),)), ("/models#/token", ())):
            self.assert_error(self.admin("GET", target, headers=(*bearer(api), *headers)), 400, "InvalidKeyException", DENIED)


class GrpcTokenTest(TokenServerTest):
    def methods(self, address, own):
        """Every method of every service that reflection lists."""
        metadata = (("authorization", "Bearer " + self.key(own)),)
        services = self.reflect(address, metadata, wire.ReflectionRequest(list_services="*"))
        names = [service.name for service in services.list_services_response.service]
        methods = []
        for name in names:
            answer = self.reflect(address, metadata, wire.ReflectionRequest(file_containing_symbol=name))
            if not answer.HasField("file_descriptor_response"):  # grpc's own health service and v1alpha
                continue
            for data in answer.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(data)
                methods += [f"/{file.package}.{service.name}/{method.name}" for service in file.service for method in service.method
                            if f"{file.package}.{service.name}" == name]
        return sorted(set(methods) | {HEALTH + "Check", HEALTH + "Watch", REFLECTION.format("v1"), REFLECTION.format("v1alpha"),
                                      "/no.such.Service/Method", INFERENCE + "NoSuchMethod"})

    def reflect(self, address, metadata, message):
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]) as channel:
            call = channel.stream_stream(REFLECTION.format("v1"), request_serializer=lambda m: m.SerializeToString(),
                                         response_deserializer=wire.ReflectionResponse.FromString)
            return next(call(iter([message]), metadata=metadata, timeout=20))

    def test_every_rpc_refuses_every_wrong_token(self):
        for address, own, expected in ((self.server.address, "inference", INFERENCE + "Predictions"),
                                       (self.server.management_address, "management", MANAGEMENT + "RegisterModel")):
            methods = self.methods(address, own)
            self.assertIn(expected, methods)
            for path in methods:
                wrong = {what: (("authorization", value),) for what, value in self.wrong_values(own).items()}
                wrong["missing"] = ()
                wrong["two"] = (("authorization", "Bearer " + self.key(own)), ("authorization", "Bearer " + self.key(own)))
                wrong["under another name"] = (("x-authorization", "Bearer " + self.key(own)),)
                for what, metadata in wrong.items():
                    with self.subTest(path=path, wrong=what):
                        self.assertEqual(self.rpc(address, path, metadata), (grpc.StatusCode.PERMISSION_DENIED, DENIED))

    def test_the_right_token_opens_every_rpc(self):
        for address, own in ((self.server.address, "inference"), (self.server.management_address, "management")):
            for path in self.methods(address, own):
                if path.endswith("Watch"):
                    continue
                with self.subTest(path=path):
                    code, details = self.rpc(address, path, (("authorization", "Bearer " + self.key(own)),))
                    self.assertNotIn(code, (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED))
                    self.assertNotIn("Token", details)  # "Model API disabled" is PERMISSION_DENIED, too

    def test_one_connection_may_mix_both(self):
        with grpc.insecure_channel(self.server.address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]) as channel:
            ping = channel.unary_unary(INFERENCE + "Ping", request_serializer=lambda m: m, response_deserializer=wire.TorchServeHealthResponse.FromString)
            good = (("authorization", "Bearer " + self.key("inference")),)
            for _ in range(3):
                self.assertIn("Healthy", ping(b"", metadata=good, timeout=20).health)
                with self.assertRaises(grpc.RpcError):
                    ping(b"", timeout=20)


class KeyFileTest(TokenServerTest):
    def test_the_file_is_the_owners_only(self):
        self.assertEqual(stat.S_IMODE(os.stat(self.server.folder / "key_file.json").st_mode), 0o600)
        self.assertIn(str(self.server.folder / "key_file.json"), self.server.stdout)

    def test_new_keys_are_made_by_the_api_key(self):
        api = self.key("API")
        for kind in ("inference", "management"):
            old = self.keys
            reply = self.admin("GET", f"/token?type={kind}", headers=bearer(api))
            self.assertEqual((reply.status, reply.body), (200, b""), "the key stands in the file only")
            new = self.keys
            self.assertNotEqual(old[kind]["key"], new[kind]["key"])
            self.assertEqual({k: v for k, v in old.items() if k != kind}, {k: v for k, v in new.items() if k != kind})
        self.assertEqual(self.infer("GET", "/ping", headers=bearer(self.key("inference"))).status, 200)
        self.assertEqual(self.admin("GET", "/models", headers=bearer(self.key("management"))).status, 200)

    def test_our_own_client_reads_the_file(self):
        asked = ("generate", "--address", self.server.address, "--model", "tiny", "--prompt", "a b", "--max-tokens", "3")
        code, stdout, stderr = run_penstock(*asked, "--key-file", self.server.folder / "key_file.json")
        self.assertEqual((code, stdout != ""), (0, True), stderr)
        code, _, stderr = run_penstock(*asked)
        self.assertNotEqual(code, 0)
        self.assertIn(DENIED, stderr)
        code, _, stderr = run_penstock(*asked, "--key-file", self.server.folder / "stderr")
        self.assertNotEqual(code, 0)
        self.assertIn("expected a server's key_file.json", stderr)

    def test_an_old_key_is_void_at_once(self):
        old = self.key("inference")
        self.assertEqual(self.admin("POST", "/token?type=inference", headers=bearer(self.key("API"))).status, 200)
        self.assert_error(self.infer("GET", "/ping", headers=bearer(old)), 400, "InvalidKeyException", DENIED)

    def test_an_unknown_type_is_refused(self):
        for query in ("", "?type=", "?type=API", "?type=inference%20"):
            self.assert_error(self.admin("GET", "/token" + query, headers=bearer(self.key("API"))), 400, "BadRequestException", "management or inference")

    def test_no_key_is_in_any_log_or_answer(self):
        keys = [self.key(name) for name in ("management", "inference", "API")]
        said = [self.infer("GET", "/ping", headers=bearer(keys[0])).text, self.infer("GET", "/nothing/" + keys[1], headers=bearer(keys[2])).text,
                self.admin("GET", "/api-description", headers=bearer(keys[0])).text, self.server.stdout, self.server.stderr]
        said += [file.read_text(errors="replace") for file in (self.server.folder / "logs").rglob("*") if file.is_file()]
        for text in said:
            for key in keys:
                self.assertNotIn(key, text)

    def test_a_server_that_cannot_start_leaves_the_file_alone(self):
        before = self.keys
        port = self.server.address.rsplit(":", 1)[1]
        code, _, stderr = run_penstock("serve", "--models", f"tiny={self.server.folder}/store/tiny", "--port", port, *FREE_PORTS, *ON, cwd=self.server.folder,
                                       environment=self.server.environment)
        self.assertNotEqual(code, 0)
        self.assertIn("cannot listen", stderr)
        self.assertEqual(self.keys, before)


class TokenEndTest(unittest.TestCase):
    def start(self, *arguments):
        server = Server(arguments=arguments)
        self.addCleanup(server.close)
        return server

    def test_the_file_goes_with_a_clean_end(self):
        server = self.start(*ON)
        self.assertTrue((server.folder / "key_file.json").exists())
        server.terminate()
        self.assertEqual(server.wait_ended(), 0)
        self.assertFalse((server.folder / "key_file.json").exists())

    def test_keys_expire(self):
        server = self.start(*ON, "--set", "token_expiration_min=0.01")  # 0.6 s
        case = TokenServerTest()
        case.server = server
        old, api = case.key("inference"), case.key("API")
        wait_until(lambda: "InvalidKey" in case.infer("GET", "/ping", headers=bearer(old)).text, what="the key has expired")
        self.assertEqual(case.admin("GET", "/token?type=inference", headers=bearer(api)).status, 200)

    def test_a_flag_turns_tokens_off_whatever_the_file_says(self):
        server = self.start(*ON, "--disable-token-auth")
        self.assertFalse((server.folder / "key_file.json").exists())
        self.assertIn("Healthy", server.client.ping())

    def test_who_listens_for_others_without_keys_is_warned_once(self):
        server = self.start("--set", "management_address=http://0.0.0.0:0")
        self.assertEqual(server.stderr.count("other machines reach http://0.0.0.0:0, "), 1, server.stderr)
        guarded = self.start("--set", "management_address=http://0.0.0.0:0", *ON)
        self.assertNotIn("other machines reach", guarded.stderr)


class TorchServeTokensTest(unittest.TestCase):
    """As in TorchServe since 0.11.1, `torchserve` asks for tokens unless it is told not to."""

    def test_tokens_are_the_default(self):
        server = TorchServe()
        self.addCleanup(server.close)
        server.config.write_text(server.config.read_text().replace("disable_token_authorization=true\n", ""))
        server.start("--ts-config", str(server.config), "--models", "tiny", "--ncs")
        server.wait_started()
        status, text = server.call(server.http, "GET", "/ping")
        self.assertEqual((status, json.loads(text)["type"]), (400, "InvalidKeyException"))
        self.assertEqual(sorted(json.loads((server.folder / "key_file.json").read_text())), ["API", "inference", "management"])
        server.run("--stop", "--foreground")
        self.assertFalse((server.folder / "key_file.json").exists())


class FailureLimitTest(TokenServerTest):
    arguments = (*ON, "--set", "token_failure_limit=5")

    def test_who_sends_too_many_wrong_tokens_is_not_listened_to(self):
        good = self.key("inference")
        for _ in range(5):
            self.assertEqual(self.infer("GET", "/ping", headers=bearer("x")).status, 400)
        reply = self.infer("GET", "/ping", headers=bearer(good))
        self.assert_error(reply, 429, "InvalidKeyException", "too many requests with wrong tokens came from 127.0.0.1")
        self.assertEqual(reply.headers["Retry-After"], "60")
        self.assertEqual(self.server.stderr.count("127.0.0.1 has sent 5 wrong tokens within a minute"), 1)
        reply = self.infer("POST", "/v1/completions", headers=bearer(good))
        self.assertEqual((reply.status, reply.json["error"]["type"], reply.headers["Retry-After"]), (429, "rate_limit_error", "60"))

    def test_a_grpc_connection_is_counted_by_itself(self):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        good = (("authorization", "Bearer " + self.key("inference")),)
        with grpc.insecure_channel(self.server.address, options=options) as noisy, grpc.insecure_channel(self.server.address, options=options) as quiet:
            def ping(channel, metadata=()):
                call = channel.unary_unary(INFERENCE + "Ping", request_serializer=lambda m: m, response_deserializer=wire.TorchServeHealthResponse.FromString)
                try:
                    return call(b"", metadata=metadata, timeout=20).health and grpc.StatusCode.OK
                except grpc.RpcError as failure:
                    return failure.code()
            for _ in range(5):
                self.assertEqual(ping(noisy), grpc.StatusCode.PERMISSION_DENIED)
            self.assertEqual(ping(noisy, good), grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.assertEqual(ping(quiet, good), grpc.StatusCode.OK)
