"""Handlers in shared libraries: the example of examples/word_stream.cpp, and those of tests/grpc/handlers, served by penstock-handler."""
import http.client
import os
import pathlib
import shutil
import unittest

import grpc

from penstock_server import ManagementServerTest, wait_until, wire

Code = grpc.StatusCode
LIBRARIES = pathlib.Path(os.environ.get("PENSTOCK_HANDLERS", "handlers"))


def inputs(data, model="tiny"):
    return wire.PredictionsRequest(model_name=model, input={"data": data.encode()})


@unittest.skipUnless("PENSTOCK_HANDLERS" in os.environ, "needs the handlers of the build")
class NativeHandlerTest(ManagementServerTest):
    models = ()
    store = (("moods", None), ("words", None), ("old", None), ("none", None), ("outside", None), ("missing", None))
    config = "handler: {max_concurrent: 4}\n"
    stages = 1

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        store = cls.server.folder / "store"
        for model, library in (("moods", "moods"), ("words", "word_stream"), ("old", "old_abi")):
            shutil.copy(LIBRARIES / f"{library}.so", store / model / "handler.so")
        (store / "none" / "handler.so").write_text("not a library")
        (store / "outside" / "handler.so").symlink_to(LIBRARIES / "moods.so")

    def serve(self, folder, name=None):
        self.register(folder, name or folder, handler="handler.so")
        self.addCleanup(lambda: self.unregister(name or folder))

    def test_the_example_streams_each_word_when_it_is_made(self):
        self.serve("words")
        self.assertEqual(self.client.stream_text(inputs("a b c", "words")), ["a ", "b ", "c "])
        self.assertEqual(self.client.predict(inputs("a b c", "words")).prediction, b"a b c ")
        connection = http.client.HTTPConnection(self.server.http_address, timeout=30)
        self.addCleanup(connection.close)
        connection.request("POST", "/predictions/words", "x y", {"Content-Type": "text/plain"})
        reply = connection.getresponse()
        self.assertEqual((reply.status, reply.headers["Transfer-Encoding"], reply.headers["Content-Type"]),
                         (200, "chunked", "text/plain; charset=utf-8"))
        self.assertEqual(reply.read(), b"x y ")
        self.assert_fails(Code.INVALID_ARGUMENT, lambda: self.client.predict(wire.PredictionsRequest(model_name="words")), "no input")

    def test_a_handler_knows_its_model_and_may_refuse_fail_or_say_nothing(self):
        self.serve("moods")
        folder = self.server.folder / "store" / "moods"
        self.assertEqual(self.client.predict(inputs("who", "moods")).prediction.decode(), f"moods in {folder.resolve()} times 4")
        self.assertEqual(self.client.predict(inputs("echo", "moods")).prediction, b"echo")
        self.assertEqual(self.client.predict(inputs("silent", "moods")).prediction, b"")
        self.assert_fails(Code.FAILED_PRECONDITION, lambda: self.client.predict(inputs("refuse", "moods")), "no")
        self.assert_fails(Code.INTERNAL, lambda: self.client.predict(inputs("throw", "moods")), "a bad mood")
        self.assert_fails(Code.INTERNAL, lambda: self.client.stream(inputs("throw late", "moods")), "the handler failed: a bad mood")

    def test_a_cancelled_request_is_visible_to_the_handler(self):
        self.serve("moods", "cancelled")
        call = self.client.stream(inputs("endless", "cancelled"))
        next(call)
        call.cancel()
        wait_until(lambda: "was cancelled" in self.server.worker_log(group="cancelled-0"), what="the handler's word")

    def test_a_crash_ends_its_worker_only(self):
        self.serve("moods", "crashing")
        self.serve("words", "bystander")
        stream = self.client.stream(inputs("a b c d e f g h", "bystander"))
        next(stream)
        self.assert_fails(Code.UNAVAILABLE, lambda: self.client.predict(inputs("crash", "crashing")), "signal 6")
        self.assertEqual(len(list(stream)), 7)
        wait_until(lambda: self.client.health("crashing") == 1, what="the restart")
        self.assertEqual(self.client.predict(inputs("echo", "crashing")).prediction, b"echo")

    def test_what_cannot_be_loaded_says_why(self):
        for folder, name, code, word in (("old", "old", Code.INTERNAL, "ABI version 999"), ("none", "none", Code.INTERNAL, "cannot be loaded"),
                                         ("moods", "unloadable", Code.INTERNAL, "weights.bin is not there"),
                                         ("outside", "outside", Code.INTERNAL, "lies outside"),
                                         ("missing", "missing", Code.INTERNAL, "there is no file 'handler.so'")):
            with self.subTest(name):
                self.assert_fails(code, lambda: self.register(folder, name, handler="handler.so"), word)
        self.assert_fails(Code.INTERNAL, lambda: self.register("moods", "x", handler="../words/handler.so"), "lies outside")
