"""Models fetched from URLs: nothing by default; what is allowed is fetched whole or not at all, redirects included."""
import http.server
import pathlib
import tempfile
import threading
import time
import unittest

from http_archives_test import model_files, write_zip
from http_case import HttpServerTest
from penstock_server import FAKE_WORKER


class Archives(http.server.BaseHTTPRequestHandler):
    """/ok/NAME.mar is a model; the other paths misbehave as they are called."""

    protocol_version = "HTTP/1.1"
    asked = []
    archive = b""

    def do_GET(self):
        self.asked.append(self.path)
        what, _, rest = self.path[1:].partition("/")
        getattr(self, "answer_" + what)(rest)

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def answer_ok(self, _):
        self.reply(200, self.archive)

    def answer_away(self, rest):
        """To /REST."""
        self.reply(302, b"a page that must not be stored", Location=f"/{rest}")

    def answer_outside(self, rest):
        self.reply(301, Location=f"http://localhost:{self.server.server_port}/ok/{rest}")

    def answer_file(self, rest):
        self.reply(302, Location=f"file:///etc/{rest}")

    def answer_climbing(self, rest):
        self.reply(302, Location=f"/ok/%2e%2e/{rest}")

    def answer_round(self, rest):
        self.reply(302, Location=f"/round/{rest}")

    def answer_large(self, _):
        self.reply(200, bytes(2 << 20))

    def answer_endless(self, _):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for _ in range(64):
                self.wfile.write(bytes(64 << 10))
        except OSError:
            pass
        self.close_connection = True

    def answer_slow(self, _):
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass

    def answer_dies(self, _):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.archive)))
        self.end_headers()
        self.wfile.write(self.archive[:len(self.archive) // 2])
        self.close_connection = True

    def answer_text(self, _):
        self.reply(200, b"not an archive\n")

    def answer_missing(self, _):
        self.reply(404, b"no")

    def answer_nothing(self, _):
        self.reply(204)

    def log_message(self, *_):
        pass


class ArchiveServer(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """Clients that go are part of the tests."""


def serve_archives():
    with tempfile.TemporaryDirectory() as folder:
        write_zip(f"{folder}/m.mar", model_files("fetched"))
        Archives.archive = pathlib.Path(folder, "m.mar").read_bytes()
    server = ArchiveServer(("127.0.0.1", 0), Archives)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@unittest.skipUnless(FAKE_WORKER, "a worker without a model loads faster; the rest of the path is the same")
class DownloadsTest(HttpServerTest):
    store = (("placeholder", None),)
    environment = {"no_proxy": "*"}.items()

    @classmethod
    def setUpClass(cls):
        cls.archives = serve_archives()
        cls.addClassCleanup(cls.archives.server_close)
        cls.addClassCleanup(cls.archives.shutdown)
        cls.outside = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.outside.cleanup)
        write_zip(f"{cls.outside.name}/local.mar", model_files("local"))
        cls.base = f"http://127.0.0.1:{cls.archives.server_port}"
        cls.arguments = ("--set", f"allowed_urls={cls.base}/.*,file://{cls.outside.name}/.*", "--set", "max_download_mb=1", "--set", "download_timeout=2")
        super().setUpClass()
        cls.folder = cls.server.folder / "store"

    def setUp(self):
        self.before = set(self.folder.iterdir())
        self.addCleanup(lambda: self.assertEqual(set(self.folder.iterdir()), self.before, "something stays in the store"))

    def register(self, url, **parameters):
        return self.admin("POST", "/models", {"url": url, "initial_workers": 0, **parameters})

    def test_a_model_is_fetched_serves_and_goes_with_its_file(self):
        reply = self.register(self.base + "/ok/first.mar?signature=x", initial_workers=1)
        self.assertEqual(reply.status, 200, reply.text)
        self.assertEqual(reply.json["status"], 'Model "fetched" Version: 1.0 registered with 1 initial workers')
        self.assertEqual((self.folder / "first.mar").read_bytes(), Archives.archive)
        self.assertEqual(self.infer("POST", "/predictions/fetched", {"prompt": "a", "max_tokens": 2}).status, 200)
        self.assertEqual(self.admin("GET", "/models/fetched").json[0]["modelUrl"], self.base + "/ok/first.mar?signature=x")
        self.assert_error(self.register(self.base + "/ok/first.mar"), 500, "InternalServerException", "Model file already exists: first.mar")
        self.assertEqual(self.admin("DELETE", "/models/fetched").status, 200)

    def test_a_redirect_is_followed_to_where_it_is_allowed(self):
        reply = self.register(self.base + "/away/away/ok/second.mar", model_name="second")
        self.assertEqual(reply.status, 200, reply.text)
        self.assertEqual((self.folder / "second.mar").read_bytes(), Archives.archive)
        self.admin("DELETE", "/models/second")

    def test_a_file_of_this_machine_is_copied_if_that_is_allowed(self):
        reply = self.register(f"file://{self.outside.name}/local.mar")
        self.assertEqual(reply.status, 200, reply.text)
        self.assertTrue((self.folder / "local.mar").exists())
        self.admin("DELETE", "/models/local")
        self.assertTrue(pathlib.Path(self.outside.name, "local.mar").exists())

    def test_what_is_not_allowed_is_not_even_asked_for(self):
        for url, words in ((f"http://localhost:{self.archives.server_port}/ok/x.mar", "does not match any allowed URL(s)"),
                           (f"{self.base}/ok/../x.mar", "Relative path is not allowed in url: "),
                           (f"{self.base}/ok/%2E%2e/x.mar", "Relative path is not allowed in url: "),
                           ("file:///etc/x.mar", "does not match any allowed URL(s)"), ("ftp://127.0.0.1/x.mar", "does not match any allowed URL(s)")):
            with self.subTest(url):
                Archives.asked.clear()
                self.assert_error(self.register(url), 404, "ModelNotFoundException", words)
                self.assertEqual(Archives.asked, [])

    def test_a_redirect_to_where_it_is_not_allowed_ends_there(self):
        for path, words in (("/outside/x.mar", "does not match any allowed URL(s)"), ("/file/passwd.mar", "does not match any allowed URL(s)"),
                            ("/climbing/x.mar", "Relative path is not allowed in url")):
            with self.subTest(path):
                Archives.asked.clear()
                self.assert_error(self.register(self.base + path), 404, "ModelNotFoundException", words)
                self.assertEqual(Archives.asked, [path])
        self.assert_error(self.register(self.base + "/round/x.mar"), 400, "BadRequestException", "more than 5 redirects")

    def test_what_cannot_be_fetched_whole_is_one_error(self):
        for path, words in (("/missing/x.mar", "the server answered 404"), ("/nothing/x.mar", "the server answered 204"),
                            ("/large/x.mar", "larger than the limit"), ("/endless/x.mar", "larger than the limit"),
                            ("/slow/x.mar", "took longer than 2 s"), ("/dies/x.mar", "Failed to download archive from: "),
                            ("/text/x.mar", "expected a whole zip or tar.gz file"), ("/ok/x.txt", "the name of a .mar"), ("/ok/", "the name of a .mar"),
                            ("/ok/.hidden.mar", "the name of a .mar"), ("/ok/a%2Fb%00.mar", "expected an http"), ("/ok/x.mar#part", "expected an http")):
            with self.subTest(path):
                self.assert_error(self.register(self.base + path, model_name="x"), 400, "BadRequestException", words)
        self.assert_error(self.register(f"file://{self.outside.name}/none.mar"), 400, "BadRequestException", "there is no such file")
        self.assert_error(self.register(f"file://{self.outside.name}/"), 400, "BadRequestException", "the name of a .mar")

    def test_a_model_that_fails_takes_its_file_along(self):
        reply = self.register(self.base + "/ok/third.mar", initial_workers=1, handler="invalidHandler")
        self.assert_error(reply, 500, "InternalServerException", "Error while creating workers")
        reply = self.register(self.base + "/ok/third.mar", model_name="tiny")
        self.assert_error(reply, 409, "ConflictStatusException", "already registered")


@unittest.skipUnless(FAKE_WORKER, "nothing is loaded")
class NoUrlByDefaultTest(HttpServerTest):
    models = ()
    store = (("placeholder", None),)

    def test_no_url_is_allowed_by_default(self):
        archives = serve_archives()
        self.addCleanup(archives.server_close)
        self.addCleanup(archives.shutdown)
        Archives.asked.clear()
        for url in (f"http://127.0.0.1:{archives.server_port}/ok/x.mar", "https://example.com/x.mar", "file:///etc/x.mar"):
            self.assert_error(self.admin("POST", "/models?url=" + url), 404, "ModelNotFoundException", f"Given URL {url} does not match any allowed URL(s)")
        self.assertEqual(Archives.asked, [])
