"""From `penstock data prepare` to a trained model: the same as from text, resumed in the middle of an epoch, and files that change on the way."""
import os
import shutil
import subprocess
import time
import unittest

from train_case import BIN, TrainCase

EVERY_STEP = {"validation.every_steps": 1, "validation.batches": 1, "batch.microbatch_size": 2}
FOUR_RANKS = {"mesh.data": 2, "mesh.pipe": 2, **EVERY_STEP}


class PreparedDataTest(TrainCase):
    def prepare(self, documents=2000):
        lines = "\n%\n".join(f"document {i * i} says: the quick brown fox jumps over {i} lazy dogs" for i in range(documents))
        (self.folder / "text").write_text(lines)
        out = self.folder / "prepared"
        done = subprocess.run([BIN / "penstock", "data", "prepare", self.folder / "text", "--output", out, "--quiet"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out

    def test_prepared_data_trains_as_its_text_does(self):
        prepared = self.prepare()
        self.train("read", **FOUR_RANKS, steps=10)
        self.train("shards", **FOUR_RANKS, **{"steps": 10, "data.path": prepared})
        self.assertEqual(len(self.losses("read")), 10)
        self.assertEqual(self.losses("shards"), self.losses("read"))

    def test_a_run_resumes_exactly_within_an_epoch_and_across_its_end(self):
        # 4 sequences of 64 tokens a step, some 27 windows: an epoch ends between steps 6 and 7.
        settings = {**FOUR_RANKS, "data.path": self.prepare(30), "batch.microbatches": 1, "batch.microbatch_size": 2, "mesh.pipe": 1, "steps": 16,
                    "checkpoint.every_steps": 1, "checkpoint.keep": 100}
        self.train("whole", **settings)
        losses = self.losses("whole")
        self.assertEqual(len(losses), 16)
        for step in (4, 6, 7, 12):
            name = f"from-{step}"
            shutil.copytree(self.folder / "whole", self.folder / name)
            for later in self.checkpoints(name)[step:]:
                shutil.rmtree(self.folder / name / "checkpoints" / later)
            resumed = self.train(name, "--resume", **settings)
            self.assertIn(f"at step {step}", resumed.stderr)
            self.assertEqual(self.losses(name), losses, f"resumed at step {step}")

    def test_documents_apart_give_the_same_losses_on_four_ranks_as_on_one(self):
        # The number of targets differs from replica to replica and from step to step; the loss is divided by that of all.
        shared = {**EVERY_STEP, "data.path": self.prepare(), "data.packing": "document", "steps": 12}
        self.train("one", **shared, **{"mesh.data": 1, "mesh.pipe": 1, "batch.microbatches": 4})
        self.train("four", **shared, **{"mesh.data": 2, "mesh.pipe": 2, "batch.microbatches": 2})
        self.train("across", **{**shared, "data.packing": "stream"}, **{"mesh.data": 1, "mesh.pipe": 1, "batch.microbatches": 4})
        one, four = self.losses("one"), self.losses("four")
        self.assertEqual(len(one), 12)
        self.assertLess(max(abs(a - b) for a, b in zip(one, four)), 1e-5)
        self.assertGreater(max(abs(a - b) for a, b in zip(one, self.losses("across"))), 1e-3, "packing makes no difference")

    def test_whole_documents_fill_rows_unevenly_and_give_the_same_losses_on_four_ranks(self):
        shared = {**EVERY_STEP, "data.path": self.prepare(), "data.packing": "whole", "batch.sequence_length": 100, "steps": 6}
        self.train("one", **shared, **{"mesh.data": 1, "mesh.pipe": 1, "batch.microbatches": 4})
        self.train("four", **shared, **{"mesh.data": 2, "mesh.pipe": 2, "batch.microbatches": 2})
        one, four = self.losses("one"), self.losses("four")
        self.assertEqual(len(one), 6)
        self.assertLess(max(abs(a - b) for a, b in zip(one, four)), 1e-5)

    def test_data_that_shrinks_or_vanishes_ends_every_rank_and_names_the_file(self):
        for what, change in (("shrinks", lambda shard: os.truncate(shard, 100)), ("vanishes", os.remove)):
            with self.subTest(what):
                shard = self.prepare() / "train-00000.tokens"
                process = self.start(what, **{**FOUR_RANKS, "steps": 100000, "data.path": shard.parent})
                metrics = self.folder / what / "metrics.jsonl"
                self.wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2, "the first steps")
                self.assertIsNone(process.poll())
                change(shard)
                begin = time.monotonic()
                _, stderr = process.communicate(timeout=30)
                self.assertLess(time.monotonic() - begin, 20)
                self.assertNotEqual(process.returncode, 0)
                self.assertNotIn("SIGBUS", stderr)
                self.assertRegex(stderr, rf"{shard}: (changed|gone) while it was in use")
                shutil.rmtree(shard.parent)

    def test_damage_at_the_start_is_one_error(self):
        shard = self.prepare() / "train-00000.tokens"
        os.truncate(shard, 200)
        done = subprocess.run(self.command("damaged", **{"steps": 5, "data.path": shard.parent}), capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(f"data.path: {shard}: expected", done.stderr)


if __name__ == "__main__":
    unittest.main()
