"""Ranks that stand still: all others' flight recorders say which one, and where."""
import json
import os
import re
import signal
import subprocess
import time
import unittest

from train_case import BIN, TrainCase

FOUR_RANKS = {"mesh.data": 2, "mesh.pipe": 2, "steps": 100000, "batch.microbatch_size": 1}


class StuckTest(TrainCase):
    def start_with_fault(self, name, fault, **settings):
        os.environ["PENSTOCK_TEST_FAULT"] = fault
        self.addCleanup(os.environ.pop, "PENSTOCK_TEST_FAULT", None)
        return self.start(name, **{**FOUR_RANKS, **settings})

    def flight(self, name, *arguments):
        return subprocess.run([BIN / "penstock", "flight", self.folder / name, *map(str, arguments)], capture_output=True, text=True, timeout=60)

    def dumps(self, name):
        return sorted(p.name for p in (self.folder / name / "flight").glob("rank-*.json"))

    def test_a_rank_that_sleeps_is_named_with_its_action(self):
        process = self.start_with_fault("asleep", "sleep:forward:1:3", **{"timeout_seconds": 8, "stuck_step_seconds": 2})
        _, stderr = process.communicate(timeout=60)
        self.assertNotEqual(process.returncode, 0)
        self.assertRegex(stderr, r"rank \d's step takes longer than 2 s")
        self.assertRegex(stderr, r"step 3: .* waits? in .*; rank 1 is still in forward of micro-batch 0 on stage 0 since [0-9.]+ s")
        self.assertEqual(self.dumps("asleep"), [f"rank-{r}.json" for r in range(4)])
        said = self.flight("asleep", "--trace", self.folder / "trace.json")
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertRegex(said.stdout, r"step 3: .*rank 1 is still in forward of micro-batch 0 on stage 0")
        trace = json.loads((self.folder / "trace.json").read_text())["traceEvents"]
        self.assertEqual({e["pid"] for e in trace}, {0, 1, 2, 3})
        self.assertTrue(any(e.get("cat") == "not finished" and e["name"] == "forward" for e in trace))

    def test_a_stopped_rank_is_named_though_it_left_no_dump(self):
        process = self.start_with_fault("stopped", "stop:backward:2:3")
        self.wait_for(lambda: len(self.ranks(process)) == 4, "four ranks")
        stopped = self.ranks(process)[2]
        self.addCleanup(lambda: os.path.exists(f"/proc/{stopped}") and os.kill(stopped, signal.SIGKILL))
        _, stderr = process.communicate(timeout=60)
        self.assertRegex(stderr, r"rank 2 has left no dump: its process is stopped, or gone")
        self.assertEqual(self.dumps("stopped"), ["rank-0.json", "rank-1.json", "rank-3.json"])
        self.assertRegex(self.flight("stopped").stdout, r"wait.*; rank 2 has left no dump")

    def test_a_signal_makes_all_ranks_write_and_the_run_goes_on(self):
        process = self.start("asked", **{**FOUR_RANKS, "timeout_seconds": 60})
        metrics = self.folder / "asked" / "metrics.jsonl"
        self.wait_for(lambda: metrics.exists() and self.losses("asked"), "the first report")
        os.kill(self.ranks(process)[3], signal.SIGUSR1)
        self.wait_for(lambda: len(self.dumps("asked")) == 4, "every rank's dump", 20)
        steps = len(self.losses("asked"))
        self.wait_for(lambda: len(self.losses("asked")) > steps, "more steps")
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, stderr)
        self.assertIn("rank 3 was asked by SIGUSR1", self.flight("asked").stdout)
        dump = json.loads((self.folder / "asked" / "flight" / "rank-1.json").read_text())
        self.assertEqual(dump["reason"], "rank 3 was asked by SIGUSR1")
        self.assertEqual({e["name"] for e in dump["entries"] if e["kind"] == "action"}, {"forward", "backward", "send of activation", "wait for gradient"})

    def test_a_run_that_never_was_stuck_has_nothing_to_show(self):
        (self.folder / "none").mkdir()
        said = self.flight("none")
        self.assertEqual(said.returncode, 2)
        self.assertIn("no rank has left a dump", said.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
