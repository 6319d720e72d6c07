"""Where the HTTP API is: unix sockets, one address for both APIs, web pages of other origins."""
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import stat
import tempfile
import unittest

from http_case import HttpServerTest, Reply
from penstock_server import Server


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.path)


def call_unix(path, method, target, body=None):
    connection = UnixConnection(path)
    try:
        connection.request(method, target, json.dumps(body) if body else None)
        return Reply(connection.getresponse())
    finally:
        connection.close()


class UnixSocketTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-unix-")
        self.addCleanup(self.folder.cleanup)
        self.inference, self.management = (os.path.join(self.folder.name, name) for name in ("inference.sock", "management.sock"))

    def start(self, *arguments):
        server = Server(arguments=("--set", f"inference_address=unix:{self.inference}", "--set", f"management_address=unix:{self.management}", *arguments))
        self.addCleanup(server.close)
        return server

    def test_both_apis_are_served_and_the_files_are_the_owners_only(self):
        server = self.start()
        self.assertEqual(server.http_address, "unix:" + self.inference)
        self.assertEqual(call_unix(self.inference, "GET", "/ping").json, {"status": "Healthy"})
        body = {"prompt": "a b", "max_tokens": 4}
        whole = call_unix(self.inference, "POST", "/predictions/tiny", body).text
        self.assertEqual(call_unix(self.inference, "POST", "/predictions/tiny", {**body, "stream": True}).text, whole)
        self.assertEqual(call_unix(self.management, "GET", "/models").json["models"][0]["modelName"], "tiny")
        for path in (self.inference, self.management):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        server.terminate()
        self.assertEqual(server.wait_ended(), 0)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_the_socket_of_a_killed_server_is_taken_over(self):
        first = self.start()
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        self.assertTrue(os.path.exists(self.inference))
        self.start()
        self.assertEqual(call_unix(self.inference, "GET", "/ping").status, 200)

    def test_a_long_path_and_a_file_in_the_way_stop_the_start(self):
        pathlib.Path(self.inference).write_text("precious")
        server = Server(arguments=("--set", f"inference_address=unix:{self.inference}"), wait=False)
        self.addCleanup(server.close)
        self.assertNotEqual(server.wait_ended(), 0)
        self.assertIn("no socket", server.stderr)
        self.assertEqual(pathlib.Path(self.inference).read_text(), "precious")

    def test_tokens_are_asked_for_on_unix_sockets_too(self):
        self.start("--set", "disable_token_authorization=false")
        self.assertEqual(call_unix(self.inference, "GET", "/ping").json["type"], "InvalidKeyException")


def one_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    return "--set", f"inference_address={address}", "--set", f"management_address={address}"


class OneAddressTest(HttpServerTest):
    """KServe's image gives both APIs one address."""

    @classmethod
    def setUpClass(cls):
        cls.arguments = one_address()
        super().setUpClass()

    def test_both_tables_are_served(self):
        self.assertEqual(self.server.http_address, self.server.http_management_address)
        self.assertEqual(self.infer("GET", "/ping").status, 200)
        self.assertEqual(self.infer("POST", "/predictions/tiny", {"prompt": "a", "max_tokens": 2}).status, 200)
        self.assertEqual(self.infer("GET", "/models/tiny").json[0]["modelName"], "tiny")
        paths = self.infer("GET", "/api-description").json["paths"]
        self.assertIn("/predictions/{model_name}", paths)
        self.assertIn("/models/{model_name}", paths)

    def test_the_legacy_route_takes_nothing_from_models_that_are_called_predict(self):
        self.assert_error(self.infer("GET", "/models/predict"), 404, "ModelNotFoundException", "predict")
        self.assert_error(self.infer("GET", "/v2/models/predict"), 404, "ModelNotFoundException", "predict")
        self.assertEqual(self.infer("POST", "/tiny/predict", {"prompt": "a", "max_tokens": 2}).status, 200)
        self.assert_error(self.infer("POST", "/models/predict", "x"), 404, "ModelNotFoundException", "models")


class OneAddressTokenTest(HttpServerTest):
    @classmethod
    def setUpClass(cls):
        cls.arguments = (*one_address(), "--set", "disable_token_authorization=false", "--set", "token_failure_limit=0")
        super().setUpClass()

    def test_each_route_asks_for_its_own_key(self):
        keys = {name: entry["key"] for name, entry in json.loads((self.server.folder / "key_file.json").read_text()).items()}
        for method, target, owners in (("GET", "/ping", ("inference",)), ("POST", "/predictions/tiny", ("inference",)), ("GET", "/models", ("management",)),
                                       ("PUT", "/models/tiny", ("management",)), ("POST", "/models", ("management",)), ("GET", "/token?type=inference", ("API",)),
                                       ("GET", "/models/predict", ("management",)), ("PUT", "/models/tiny/predict", ("management",)),
                                       ("POST", "/tiny/predict", ("inference",)), ("GET", "/v2/models/predict", ("inference",)),
                                       ("GET", "/api-description", ("inference", "management")), ("GET", "/nothing", ("inference", "management"))):
            for name in ("inference", "management", "API"):
                reply = self.call(self.server.http_address, method, target, "x", (("Authorization", "Bearer " + keys[name]),))
                with self.subTest(method=method, target=target, key=name):
                    self.assertEqual("InvalidKeyException" in reply.text, name not in owners, reply.text)
                if target.startswith("/token") and name == "API":
                    keys = {name: entry["key"] for name, entry in json.loads((self.server.folder / "key_file.json").read_text()).items()}


class CorsTest(HttpServerTest):
    arguments = ("--set", "cors_allowed_origin=https://a.example, https://b.example", "--set", "cors_allowed_methods=GET, POST",
                 "--set", "cors_allowed_headers=Authorization, Content-Type", "--set", "disable_token_authorization=false")

    def preflight(self, origin, target="/predictions/tiny"):
        return self.infer("OPTIONS", target, headers=(("Origin", origin), ("Access-Control-Request-Method", "POST")))

    def test_a_browser_may_ask_without_a_token(self):
        reply = self.preflight("https://b.example")
        self.assertEqual((reply.status, reply.body), (204, b""))
        self.assertEqual(reply.headers["Access-Control-Allow-Origin"], "https://b.example")
        self.assertEqual(reply.headers["Vary"], "Origin")
        self.assertEqual(reply.headers["Access-Control-Allow-Methods"], "GET, POST")
        self.assertEqual(reply.headers["Access-Control-Allow-Headers"], "Authorization, Content-Type")

    def test_every_answer_to_an_allowed_page_says_so_errors_too(self):
        key = json.loads((self.server.folder / "key_file.json").read_text())["inference"]["key"]
        for headers, status in (((("Authorization", "Bearer " + key),), 200), ((), 400)):
            reply = self.infer("GET", "/ping", headers=(("Origin", "https://a.example"), *headers))
            self.assertEqual((reply.status, reply.headers["Access-Control-Allow-Origin"]), (status, "https://a.example"))
        streamed = self.infer("POST", "/predictions/tiny", {"prompt": "a", "max_tokens": 2, "stream": True},
                              (("Origin", "https://a.example"), ("Authorization", "Bearer " + key)))
        self.assertEqual((streamed.status, streamed.headers["Access-Control-Allow-Origin"]), (200, "https://a.example"))

    def test_other_pages_learn_nothing(self):
        for origin in ("https://evil.example", "null", "https://a.example.evil", "http://a.example"):
            reply = self.preflight(origin)
            self.assert_error(reply, 400, "InvalidKeyException")
            self.assertIsNone(reply.headers["Access-Control-Allow-Origin"])


class NoCorsTest(HttpServerTest):
    def test_without_the_keys_no_answer_speaks_of_origins(self):
        reply = self.infer("GET", "/ping", headers=(("Origin", "https://a.example"),))
        self.assertEqual([name for name in reply.headers if name.lower().startswith("access-control")], [])


class NoBucketTest(unittest.TestCase):
    """Other people's buckets: what is not ours may become an attacker's."""

    def test_no_script_names_a_bucket(self):
        root = pathlib.Path(__file__).resolve().parents[2]
        bucket = re.compile(rb"s3://|amazonaws\.com|storage\.googleapis|blob\.core\.windows")
        files = [file for folder in ("scripts", "bench", "deploy", ".ci") for file in (root / folder).rglob("*") if file.is_file()]
        self.assertGreater(len(files), 10)
        for file in [*files, root / "test", root / "quickstart"]:
            with self.subTest(file=file):
                self.assertIsNone(bucket.search(file.read_bytes()))
