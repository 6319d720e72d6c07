"""A trained model served by ranks that share its layers says what it says on one rank, and a rank that dies ends its requests with its name."""
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "grpc"))
try:
    import grpc
    import penstock_server
except ImportError as absent:
    print(f"skipped: {absent} (python3-grpcio, python3-protobuf)")
    sys.exit(77)
import shutil
import tempfile
import unittest

PROMPTS = [f"The {word} of" for word in ("rank", "stage", "layer", "pipe", "model", "token", "key", "cache")] + [f"## {word}" for word in ("Done", "Next", "Why", "A")]


class TensorTest(unittest.TestCase):
    def serve(self, parallel, ranks, handler=""):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-tensor-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        model = penstock_server.make_model(folder / "tiny", stages=ranks, config=handler)
        config = model / "model-config.yaml"
        config.write_text(config.read_text().replace("parallelType: pp", f"parallelType: {parallel}"))
        server = penstock_server.Server(models=(), arguments=("--models", f"tiny={model}"))
        self.addCleanup(server.close)
        return server

    def answers(self, *layout):
        server = self.serve(*layout)
        calls = [server.client.stream(penstock_server.request(prompt=p, max_tokens=24, temperature=0)) for p in PROMPTS]
        texts = [b"".join(m.prediction for m in call) for call in calls]
        server.close()
        return texts

    def test_two_ranks_that_share_layers_and_two_stages_of_them_say_what_one_rank_says(self):
        handler = "handler: {dtype: fp32}\n"
        one = self.answers("pp", 1, handler)
        self.assertEqual(self.answers("tp", 2, handler), one)
        self.assertEqual(self.answers("pptp", 4, "handler: {dtype: fp32, tensor_ranks: 2}\n"), one)
        self.assertGreater(len(set(one)), 1, "all answers are the same: the test says nothing")

    def test_a_tensor_rank_that_is_killed_in_mid_stream_is_named_and_the_group_comes_back(self):
        server = self.serve("tp", 2)
        for victim in (1, 0):
            call = server.client.stream(penstock_server.request(prompt="The", max_tokens=penstock_server.LONG, temperature=0, ignore_eos=True), timeout=60)
            next(call)
            os.kill(server.ranks()[victim], signal.SIGKILL)
            with self.assertRaises(grpc.RpcError) as failed:
                list(call)
            self.assertEqual(failed.exception.code(), grpc.StatusCode.UNAVAILABLE, failed.exception.details())
            for word in (f"rank {victim}", "SIGKILL", "tiny"):
                self.assertIn(word, failed.exception.details())
            self.assertTrue(server.client.stream_text(penstock_server.request(prompt="again", max_tokens=3), timeout=60))

    def test_ranks_that_the_model_cannot_be_divided_among_are_refused_with_the_numbers_that_do(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-tensor-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        model = penstock_server.make_model(folder / "tiny", stages=7)
        config = model / "model-config.yaml"
        config.write_text(config.read_text().replace("parallelType: pp", "parallelType: tp"))
        server = penstock_server.Server(models=(), arguments=("--models", f"tiny={model}"), wait=False)
        self.addCleanup(server.close)
        self.assertEqual(server.wait_ended(60), 2)
        self.assertIn("7 ranks cannot share the layers of this model", server.stderr)
        self.assertIn("possible numbers of tensor ranks: 1, 2", server.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
