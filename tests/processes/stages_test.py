"""A trained model served in two stages says what it says in one, through the real server."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "grpc"))
try:
    import penstock_server
except ImportError as absent:
    print(f"skipped: {absent} (python3-grpcio, python3-protobuf)")
    sys.exit(77)
import unittest

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


if __name__ == "__main__":
    unittest.main(verbosity=2)
