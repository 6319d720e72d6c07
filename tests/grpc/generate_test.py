"""penstock.v1.Generate, through a client made from its proto file."""
import atexit
import importlib
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import grpc

from penstock_server import FAKE_WORKER, LONG, ServerTest, request, wait_until, wire

Code = grpc.StatusCode
PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
METHOD = "/penstock.v1.Generate/Generate"


def load_proto():
    folder = tempfile.mkdtemp(prefix="penstock-proto-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run(["protoc", f"--python_out={folder}", f"-I{PROTO}", "penstock/generate.proto"], check=True)
    sys.path.insert(0, folder)
    return importlib.import_module("penstock.generate_pb2")


v1 = load_proto()


def stub(client):
    return client.channel.unary_stream(METHOD, request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
                                       response_deserializer=v1.GenerateResponse.FromString)


def ask(text=None, ids=None, model="tiny", version="", is_chat=False, salt="", **sampling):
    message = v1.GenerateRequest(model=model, model_version=version, is_chat=is_chat, cache_salt=salt, sampling=v1.Sampling(**sampling))
    if text is not None:
        message.text = text
    if ids is not None:
        message.token_ids.ids.extend(ids)
    return message


def details_of(failure):
    """The google.rpc.Status in a call's trailing metadata: {name of the detail: its bytes}."""
    status = wire.Status.FromString(dict(failure.trailing_metadata())["grpc-status-details-bin"])
    return {detail.type_url.rsplit(".", 1)[-1]: detail.value for detail in status.details}


class GenerateTest(ServerTest):
    def generate(self, *arguments, timeout=60, metadata=None, **fields):
        return stub(self.client)(ask(*arguments, **fields), timeout=timeout, metadata=metadata)

    def test_a_text_comes_in_pieces_with_its_tokens_and_a_last_message_that_sums_up(self):
        messages = list(self.generate("one two three", max_tokens=12, temperature=0))
        text = "".join(m.text for m in messages)
        self.assertEqual(text, self.client.predict(request(prompt="one two three", max_tokens=12, temperature=0)).prediction.decode())
        self.assertEqual([m.HasField("finish") for m in messages], [False] * (len(messages) - 1) + [True])
        finish = messages[-1].finish
        tokens = [token for m in messages for token in m.tokens]
        self.assertEqual(len(tokens), finish.usage.completion_tokens)
        self.assertGreater(finish.usage.prompt_tokens, 0)
        self.assertIn(finish.reason, (v1.FINISH_REASON_LENGTH, v1.FINISH_REASON_STOP))
        if FAKE_WORKER:
            self.assertEqual((finish.reason, finish.usage.prompt_tokens, finish.usage.completion_tokens), (v1.FINISH_REASON_LENGTH, 3, 12))
        self.assertFalse(any(token.HasField("logprob") or token.top for token in tokens), "nobody has asked for log probabilities")

    def test_token_ids_are_as_good_as_text(self):
        messages = list(self.generate(ids=[7, 8, 9], max_tokens=4, temperature=0))
        self.assertEqual(messages[-1].finish.usage.prompt_tokens, 3)
        if FAKE_WORKER:
            self.assertEqual("".join(m.text for m in messages), "7 8 9 7 ")

    def test_log_probabilities_come_with_each_token_and_its_rivals(self):
        messages = list(self.generate("a b", max_tokens=5, temperature=0, logprobs=3))
        for token in [token for m in messages for token in m.tokens][:-1]:
            self.assertTrue(token.HasField("logprob"))
            self.assertLessEqual(token.logprob, 0)
            self.assertEqual(len(token.top), 3)
            self.assertEqual(list(token.top), sorted(token.top, key=lambda t: -t.logprob))
            self.assertTrue(token.bytes)
        messages = list(self.generate("a b", max_tokens=2, temperature=0, logprobs=0))
        self.assertTrue(messages[0].tokens[0].HasField("logprob"))
        self.assertFalse(messages[0].tokens[0].top)

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that says what it was asked for")
    def test_every_parameter_reaches_the_worker(self):
        words = "".join(m.text for m in self.generate(
            "[sampling]", salt="mine", max_tokens=9, min_tokens=2, min_p=0.25, repetition_penalty=1.5, presence_penalty=-1, frequency_penalty=0.5,
            logit_bias={5: -3.5}, stop_token_ids=[11])).split()
        expected = "min_tokens=2 min_p=0.25 repetition=1.5 presence=-1 frequency=0.5 bias[5]=-3.5 stop=11".split()
        self.assertEqual(words[:7], expected)
        self.assertEqual(words[8], "mine", "after the client's address")

    def test_messages_come_while_the_generation_still_runs(self):
        call = self.generate("a b c", max_tokens=LONG)
        next(call)
        self.assertTrue(call.is_active(), "the first message came with the end")
        call.cancel()

    @unittest.skipUnless(FAKE_WORKER, "needs the fake worker's log")
    def test_closing_the_call_and_a_deadline_end_the_work(self):
        for timeout in (60, 0.2):
            with self.subTest(timeout=timeout):
                before = self.server.worker_log().count("cancelled after")
                call = self.generate("a b c", max_tokens=LONG, timeout=timeout)
                next(call)
                if timeout == 60:
                    call.cancel()
                self.assert_fails(Code.CANCELLED if timeout == 60 else Code.DEADLINE_EXCEEDED, lambda: call)
                wait_until(lambda: self.server.worker_log().count("cancelled after") > before, 5, "the worker hears of it")

    def test_reflection_describes_it(self):
        for version in ("v1", "v1alpha"):
            listed = self.client.reflect(wire.ReflectionRequest(list_services="*"), version)
            self.assertIn("penstock.v1.Generate", [s.name for s in listed.list_services_response.service])
            described = self.client.reflect(wire.ReflectionRequest(file_containing_symbol="penstock.v1.Generate"), version)
            self.assertIn(b"GenerateResponse", b"".join(described.file_descriptor_response.file_descriptor_proto))

    def assert_refused(self, code, message, *words):
        with self.assertRaises(grpc.RpcError) as raised:
            list(stub(self.client)(message, timeout=20))
        self.assertEqual(raised.exception.code(), code, raised.exception.details())
        for word in words:
            self.assertIn(word, raised.exception.details())
        return details_of(raised.exception)

    def test_bad_values_are_refused_by_name(self):
        nan = math.nan
        bad = [("temperature", 2.5), ("temperature", nan), ("top_p", 0), ("min_p", -0.1), ("top_k", -1), ("max_tokens", 0), ("min_tokens", -1), ("repetition_penalty", 0),
               ("presence_penalty", 3), ("frequency_penalty", -3), ("logprobs", 21), ("prompt_logprobs", -1), ("regex", "("), ("json_schema", "{"), ("stop", [""]), ("stop", ["x"] * 17), ("stop", ["x" * 257]),
               ("stop_token_ids", [-1]), ("stop_token_ids", [1] * 65), ("logit_bias", {1: 101}), ("logit_bias", {-1: 1}), ("logit_bias", {i: 1 for i in range(1025)})]
        for field, value in bad:
            with self.subTest(field=field, value=str(value)[:40]):
                details = self.assert_refused(Code.INVALID_ARGUMENT, ask("x", **{field: value}), f"field '{field}'")
                self.assertEqual(wire.ErrorInfo.FromString(details["ErrorInfo"]).reason, "INVALID_ARGUMENT")
        self.assert_refused(Code.INVALID_ARGUMENT, ask("x", max_tokens=3, min_tokens=4), "field 'min_tokens'", "which is 3")

    def test_a_prompt_that_is_none_is_refused(self):
        for message, word in ((ask(), "text"), (ask(""), "text"), (ask(ids=[]), "token_ids"), (ask(ids=[-1]), "token_ids"), (ask("x" * ((1 << 20) + 1)), "1 MiB"),
                              (ask("x", salt="s" * 257), "cache_salt"), (ask("x", model=""), "model")):
            self.assert_refused(Code.INVALID_ARGUMENT, message, word)

    def test_an_unknown_model_or_version_is_not_found(self):
        details = self.assert_refused(Code.NOT_FOUND, ask("x", model="huge"), "huge", "tiny")
        self.assertEqual(wire.ErrorInfo.FromString(details["ErrorInfo"]).reason, "NOT_FOUND")
        self.assert_refused(Code.NOT_FOUND, ask("x", version="7"), "7")

    def test_bytes_that_are_no_message_cost_only_their_call(self):
        for junk in (b"\xff" * 50, b"\x1a\xff\xff\xff\xff\x0f"):
            with self.assertRaises(grpc.RpcError):
                list(stub(self.client)(junk, timeout=20))
        self.assertTrue(list(self.generate("still there?", max_tokens=2)))

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that fails on request")
    def test_an_error_of_the_worker_reaches_the_client(self):
        self.assert_fails(Code.INTERNAL, lambda: self.generate("[error] x"), "told to fail")


@unittest.skipUnless(FAKE_WORKER, "needs a worker that sends nothing")
class GenerateLimitsTest(ServerTest):
    config = "jobQueueSize: 2\nhandler:\n  max_concurrent: 1\n"

    def test_a_full_queue_is_resource_exhausted_with_a_retry_delay(self):
        generate = stub(self.client)
        found = []

        def refused():  # a call that is not waits, and fills the queue
            call = generate(ask("[hang] x"), timeout=120)
            self.addCleanup(call.cancel)
            end = time.monotonic() + 1
            while not call.done() and time.monotonic() < end:
                time.sleep(0.02)
            if call.done():
                found.append(call)
            return found
        wait_until(refused, 15, "one runs, two wait, the next is refused")
        self.assertEqual(found[-1].code(), Code.RESOURCE_EXHAUSTED)
        self.assertIn("queue is full", found[-1].details())
        self.assertEqual(wire.RetryInfo.FromString(details_of(found[-1])["RetryInfo"]).retry_delay.seconds, 1)


@unittest.skipUnless(FAKE_WORKER, "needs a worker that sends large pieces")
class GenerateSlowReaderTest(ServerTest):
    environment = {"FAKE_WORKER_STEP_MS": "1"}.items()

    def test_a_client_that_stops_reading_loses_its_stream(self):
        slow = stub(self.client)(ask("[big] x", max_tokens=3900), timeout=60)
        next(slow)
        wait_until(lambda: "cancelled after" in self.server.worker_log(), 15, "the worker stops working for a reader that does not read")
        self.assert_fails(Code.RESOURCE_EXHAUSTED, lambda: slow, "too slowly")
