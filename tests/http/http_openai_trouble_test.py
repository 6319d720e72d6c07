"""OpenAI's API when something fails: clients that go, workers that die, full queues."""
import http.client
import json
import os
import signal
import time
import unittest

import openai_schemas
from http_case import HttpServerTest
from penstock_server import FAKE_WORKER, wait_until


@unittest.skipUnless(FAKE_WORKER, "needs a worker that fails on request, and its log")
class OpenAiTroubleServerTest(HttpServerTest):
    config = "jobQueueSize: 2\nhandler:\n  max_concurrent: 2\n"
    environment = {"FAKE_WORKER_STEP_MS": "10"}.items()

    def open_stream(self, prompt, **fields):
        body = json.dumps({"model": "tiny", "prompt": prompt, "max_tokens": 3000, "stream": True, **fields}).encode()
        raw = self.connect()
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return raw

    def complete(self, **body):
        return self.infer("POST", "/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 1, **body})

    def wait_free(self):
        wait_until(lambda: self.complete(n=2).status == 200, 15, "the worker is free again")

    def cancelled(self):
        return self.server.worker_log().count("cancelled after")

    def test_a_client_that_goes_stops_all_its_choices(self):
        for wait_for_an_event in (True, False):
            before = self.cancelled()
            raw = self.open_stream("a b" if wait_for_an_event else "[hang]", n=2)
            if wait_for_an_event:
                self.assertIn(b"text/event-stream", raw.recv(1000))
            else:
                time.sleep(0.3)
            raw.close()
            wait_until(lambda: self.cancelled() >= before + 2, 10, "the worker hears of both")
            self.wait_free()

    def test_a_choice_that_fails_stops_the_others(self):
        before = self.cancelled()
        reply = self.complete(prompt=["[hang]", "[error]"])
        self.assertEqual((reply.status, reply.json["error"]["code"]), (500, "internal_error"))
        wait_until(lambda: self.cancelled() >= before + 1, 10, "the hanging one is cancelled")
        self.wait_free()

    def test_an_error_after_the_first_event_is_the_last_event(self):
        with self.open_stream("a b") as raw:
            response = http.client.HTTPResponse(raw)
            response.begin()
            body = response.read(1)
            os.kill(self.server.ranks()[1], signal.SIGKILL)
            body += response.read()
        openai_schemas.check_stream("completion", body)
        error = json.loads(body.rsplit(b"data: ", 1)[1])["error"]
        self.assertEqual((error["type"], error["param"], error["code"]), ("server_error", None, "service_unavailable"))
        self.assertIn("SIGKILL", error["message"])
        self.assertNotIn(b"[DONE]", body)
        self.wait_free()

    def test_a_full_queue_is_429_and_says_when_to_try_again(self):
        raws = [self.open_stream("[hang]", n=2)]
        time.sleep(0.3)
        raws.append(self.open_stream("[hang]", n=2))
        time.sleep(0.3)
        reply = self.complete()
        self.assertEqual((reply.status, reply.json["error"]["type"], reply.json["error"]["code"]), (429, "rate_limit_error", "rate_limit_exceeded"))
        self.assertEqual((reply.headers["retry-after"], reply.headers["retry-after-ms"]), ("1", "1000"))
        for raw in raws:
            raw.close()
        self.wait_free()

    def test_choices_that_do_not_all_fit_the_queue_are_all_taken_back(self):
        raw = self.open_stream("[hang]", n=2)
        time.sleep(0.3)
        self.assertEqual(self.complete(prompt="[hang]", n=4).status, 429)
        raw.close()
        self.wait_free()  # two that hang would hold both places

    def test_more_choices_than_ever_fit_are_refused_for_good(self):
        for body in ({"n": 5}, {"prompt": ["a"] * 5}):
            reply = self.complete(**body)
            self.assertEqual((reply.status, reply.json["error"]["param"], reply.headers["retry-after"]), (400, "n", None))
            self.assertIn("5 choices in all; the model 'tiny' takes at most 4 at once", reply.json["error"]["message"])
        self.assertEqual(self.complete(n=4).status, 200)
