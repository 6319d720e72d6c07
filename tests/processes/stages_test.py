"""A trained model served in two stages says what it says in one, through the real server, and the same by OpenAI's routes."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "grpc"))
try:
    import penstock_server
except ImportError as absent:
    print(f"skipped: {absent} (python3-grpcio, python3-protobuf)")
    sys.exit(77)
import json
import unittest
import urllib.request

PROMPTS = [f"The {word} of" for word in ("rank", "stage", "layer", "pipe", "model", "token", "key", "cache", "file", "test")] + \
          [f"## {word}" for word in ("Done", "Next", "Open", "Why", "What", "Who", "A", "B", "C", "D")]


class StagesTest(unittest.TestCase):
    def answers(self, stages):
        server = penstock_server.Server(stages=stages)
        self.addCleanup(server.close)
        calls = [server.client.stream(penstock_server.request(prompt=p, max_tokens=24, temperature=0)) for p in PROMPTS]
        return [b"".join(m.prediction for m in call) for call in calls]

    def test_one_and_two_stages_agree_for_twenty_prompts(self):
        one, two = self.answers(1), self.answers(2)
        self.assertEqual(one, two)
        self.assertGreater(len(set(one)), 1, "all answers are the same: the test says nothing")

    def test_openais_completions_are_the_texts_of_the_typed_stream(self):
        server = penstock_server.Server(stages=2)
        self.addCleanup(server.close)

        def complete(**body):
            body = {"model": "tiny", "max_tokens": 24, "temperature": 0} | body
            sent = urllib.request.Request(f"http://{server.http_address}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(sent, timeout=60) as reply:
                return reply.read().decode()

        for prompt in PROMPTS[:4]:
            expected = "".join(server.client.stream_text(penstock_server.request(prompt=prompt, max_tokens=24, temperature=0)))
            whole = json.loads(complete(prompt=prompt))
            self.assertEqual(whole["choices"][0]["text"], expected)
            usage = whole["usage"]
            self.assertEqual(usage["prompt_tokens"] + usage["completion_tokens"], usage["total_tokens"])
            self.assertLessEqual(usage["completion_tokens"], 24)
            events = [line.removeprefix("data: ") for line in complete(prompt=prompt, stream=True).splitlines() if line]
            self.assertEqual(events.pop(), "[DONE]")
            self.assertEqual("".join(json.loads(e)["choices"][0]["text"] for e in events), expected)
            self.assertEqual(json.loads(events[-1])["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
