"""StreamPredictions2: many requests in one stream, with errors in-band, and the order of sequences."""
import http.client
import json
import queue
import unittest

import grpc

from penstock_server import FAKE_WORKER, LONG, ServerTest, request, wait_until, wire

Code = grpc.StatusCode


def message(sequence=None, model="tiny", **data):
    made = request(model=model, **data)
    if sequence is not None:
        made.sequence_id = sequence
    return made


class Conversation:
    """A stream whose requests are sent when the test wants it."""

    def __init__(self, client, timeout=30):
        self.outgoing = queue.Queue()
        self.call = client.stream2(iter(self.outgoing.get, None), timeout=timeout)

    def send(self, *messages):
        for made in messages:
            self.outgoing.put(made)

    def half_close(self):
        self.outgoing.put(None)

    def reply(self):
        """All replies to one request: (text, status)."""
        text = b""
        while True:
            found = next(self.call)
            text += found.prediction
            if found.HasField("status"):
                return text.decode(), found.status, found


class StreamPredictions2Test(ServerTest):
    models = ("tiny", "other")

    def collect(self, *messages):
        """The whole stream's replies by sequence: [(text, status code), ...]."""
        texts, ended = {}, {}
        for found in self.client.stream2(messages):
            key = found.sequence_id if found.HasField("sequence_id") else None
            texts[key] = texts.get(key, b"") + found.prediction
            if found.HasField("status"):
                ended.setdefault(key, []).append((texts.pop(key).decode(), found.status.code))
        self.assertFalse(texts, "a request without a status")
        return ended

    def test_each_request_is_answered_as_by_stream_predictions_and_bears_its_sequence(self):
        want = "".join(self.client.stream_text(request(prompt="one two", max_tokens=6, temperature=0)))
        found = self.collect(message("s1", prompt="one two", max_tokens=6, temperature=0),
                             message("s2", model="other", prompt="one two", max_tokens=6, temperature=0))
        self.assertEqual(found, {"s1": [(want, 0)], "s2": [(want, 0)]})

    def test_no_sequence_id_is_needed(self):
        found = self.collect(message(prompt="a", max_tokens=2), message(prompt="a", max_tokens=2))
        self.assertEqual([code for _, code in found[None]], [0, 0])

    def test_text_comes_in_pieces(self):
        talk = Conversation(self.client)
        talk.send(message("s", prompt="a b", max_tokens=LONG))
        self.assertTrue(next(talk.call).prediction)
        self.assertTrue(talk.call.is_active())
        talk.call.cancel()

    def test_replies_that_come_after_the_last_request_are_not_lost(self):
        found = self.collect(*[message(f"s{i}", prompt="a b", max_tokens=20) for i in range(5)])
        self.assertEqual([len(found[f"s{i}"]) for i in range(5)], [1] * 5)

    def test_an_empty_stream_ends_well(self):
        self.assertEqual(self.collect(), {})

    def test_errors_come_in_band_and_the_stream_goes_on(self):
        talk = Conversation(self.client)
        talk.send(message("s", model="nobody", prompt="a"))
        text, status, raw = talk.reply()
        self.assertEqual((text, status.code, raw.sequence_id), ("", Code.NOT_FOUND.value[0], "s"))
        self.assertIn("nobody", status.message)
        info = next(d for d in status.details if d.type_url.endswith("google.rpc.ErrorInfo"))
        self.assertEqual(wire.ErrorInfo.FromString(info.value).reason, "NOT_FOUND")
        talk.send(message("s", max_tokens=3))
        self.assertEqual(talk.reply()[1].code, Code.INVALID_ARGUMENT.value[0])
        talk.send(message("x" * 257, prompt="a"))
        self.assertIn("sequence id", talk.reply()[1].message)
        talk.send(message("s", prompt="a", max_tokens=3))
        self.assertEqual(talk.reply()[1].code, 0)
        talk.half_close()
        self.assertEqual(list(talk.call), [])

    def test_cancelling_the_stream_stops_all_its_work(self):
        talk = Conversation(self.client, timeout=120)
        talk.send(*[message(f"s{i}", prompt="a b", max_tokens=LONG) for i in range(3)])
        next(talk.call)
        talk.call.cancel()
        with self.assertRaises(grpc.RpcError):
            list(talk.call)
        self.assertTrue(self.client.stream_text(request(prompt="next", max_tokens=3)))

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that fails on request")
    def test_a_request_that_fails_in_the_worker_ends_alone(self):
        found = self.collect(message("bad", prompt="[error] x"), message("good", prompt="a", max_tokens=4))
        self.assertEqual(found["bad"][0][1], Code.INTERNAL.value[0])
        self.assertEqual(found["good"], [("a a a a ", 0)])

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that hangs on request")
    def test_requests_of_a_sequence_wait_for_each_other_and_others_do_not(self):
        talk = Conversation(self.client)
        talk.send(message("s", prompt="[hang]"), message("s", prompt="a", max_tokens=2), message("t", prompt="b", max_tokens=2))
        text, status, raw = talk.reply()
        self.assertEqual((raw.sequence_id, text, status.code), ("t", "b b ", 0))
        talk.call.cancel()


class SequenceLimitsTest(ServerTest):
    config = ("sequenceBatching: true\nmaxNumSequence: 2\nmaxSequenceJobQueueSize: 1\nsequenceMaxIdleMSec: 60000\n"
              "handler:\n  max_concurrent: 4\n")

    def test_a_request_without_a_sequence_begins_one_and_is_told_its_name(self):
        talk = Conversation(self.client)
        talk.send(message(prompt="a", max_tokens=2))
        name = talk.reply()[2].sequence_id
        self.assertTrue(name.startswith("ts-seq-"), name)
        talk.send(message(name, prompt="a", max_tokens=2))
        self.assertEqual(talk.reply()[2].sequence_id, name)
        talk.send(message("second", prompt="a", max_tokens=2), message("third", prompt="a", max_tokens=2))
        replies = {raw.sequence_id: status for _, status, raw in (talk.reply(), talk.reply())}
        self.assertEqual(replies["second"].code, 0)
        refused = replies["third"]
        self.assertEqual(refused.code, Code.RESOURCE_EXHAUSTED.value[0])
        self.assertIn("maxNumSequence", refused.message)
        retry = next(d for d in refused.details if d.type_url.endswith("google.rpc.RetryInfo"))
        self.assertEqual(wire.RetryInfo.FromString(retry.value).retry_delay.seconds, 1)
        unary = self.client.predict(message(name, prompt="a", max_tokens=2))
        self.assertEqual(unary.sequence_id, name)

    def test_describe_model_shows_the_settings(self):
        connection = http.client.HTTPConnection(self.server.http_management_address, timeout=20)
        connection.request("GET", "/models/tiny")
        described = json.loads(connection.getresponse().read())[0]
        connection.close()
        self.assertEqual([described[key] for key in ("stateful", "maxNumSequence", "maxSequenceJobQueueSize", "sequenceMaxIdleMSec")],
                         [True, 2, 1, 60000])


@unittest.skipUnless(FAKE_WORKER, "needs a worker that hangs on request")
class RefusalDetailsTest(ServerTest):
    config = "jobQueueSize: 1\nhandler:\n  max_concurrent: 1\n"

    def test_a_full_queue_says_when_to_ask_again(self):
        held = [self.client.stream(request(prompt="[hang]"), timeout=60) for _ in range(2)]
        wait_until(lambda: self.num_waiting() == 1, what="one runs and one waits")
        def refused():
            for call in (lambda: self.client.predict(request(prompt="a"), timeout=1), lambda: list(self.client.stream(request(prompt="a"), timeout=1))):
                try:
                    call()
                except grpc.RpcError as failed:
                    if failed.code() != Code.RESOURCE_EXHAUSTED:
                        return False
                    metadata = dict(failed.trailing_metadata())
                    status = wire.Status.FromString(metadata["grpc-status-details-bin"])
                    self.assertEqual(status.code, Code.RESOURCE_EXHAUSTED.value[0])
                    names = [detail.type_url.rsplit(".", 1)[-1] for detail in status.details]
                    self.assertEqual(names, ["ErrorInfo", "RetryInfo"])
            return True
        wait_until(refused, 20, "the queue is full")
        for call in held:
            call.cancel()

    def num_waiting(self):
        connection = http.client.HTTPConnection(self.server.http_management_address, timeout=20)
        connection.request("GET", "/models/tiny")
        described = json.loads(connection.getresponse().read())[0]
        connection.close()
        return described["jobQueueStatus"]["pendingRequests"]

