"""--max-restarts: ranks that die, and a run that ends as if none had."""
import json
import os
import random
import re
import signal
import subprocess
import time
import unittest

from train_case import LIMIT, TrainCase

FOUR_RANKS = {"mesh.data": 2, "mesh.pipe": 2, "validation.every_steps": 1, "validation.batches": 1, "batch.microbatch_size": 1}


class RestartTest(TrainCase):
    def reports(self, name):
        return [json.loads(line) for line in (self.folder / name / "metrics.jsonl").read_text().splitlines()]

    def weights(self, name):
        return {p.name: p.read_bytes() for p in sorted((self.folder / name / "model").iterdir())}

    def kill_one_rank(self, process, name, after_step, choice):
        """Kills a rank at some step beyond `after_step`; the step of the newest checkpoint then is what the restart begins from."""
        def beyond():
            self.assertIsNone(process.poll(), "the job has ended before all kills")
            metrics = self.folder / name / "metrics.jsonl"
            lines = metrics.read_text().splitlines() if metrics.exists() else []
            return any(line.endswith("}") and json.loads(line)["step"] >= after_step for line in lines[-2:])
        self.wait_for(beyond, f"step {after_step}")
        ranks = self.ranks(process)
        self.assertEqual(sorted(ranks), [0, 1, 2, 3])
        victim = choice.randrange(4)
        os.kill(ranks[victim], signal.SIGKILL)
        self.wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in ranks.values()), "every rank's end")
        return victim

    def test_three_kills_of_random_ranks_change_no_bit(self):
        seed = random.randrange(1 << 30)
        print("seed", seed)
        choice = random.Random(seed)
        settings = {**FOUR_RANKS, "steps": 300, "checkpoint.every_steps": 20}
        self.train("undisturbed", **settings)
        process = self.start("killed", "--max-restarts", 3, **settings)
        victims = [self.kill_one_rank(process, "killed", choice.randrange(step, step + 60), choice) for step in (25, 110, 200)]
        stdout, stderr = process.communicate(timeout=LIMIT)
        self.assertEqual(process.returncode, 0, stderr)
        said = re.findall(r"penstock train: rank (\d) killed by signal 9 \(SIGKILL\): restart (\d) of 3, from the checkpoint of step (\d+)", stderr)
        self.assertEqual([(int(rank), int(attempt)) for rank, attempt, _ in said], list(zip(victims, (1, 2, 3))), stderr)
        steps = [int(step) for _, _, step in said]
        self.assertEqual(steps, sorted(steps))
        self.assertTrue(all(step > 0 and step % 20 == 0 for step in steps), steps)
        undisturbed, killed = self.reports("undisturbed"), self.reports("killed")
        self.assertEqual([r["step"] for r in killed], list(range(1, 301)), "a step is missing or written twice")
        self.assertEqual([(r["loss"], r["validation_loss"]) for r in killed], [(r["loss"], r["validation_loss"]) for r in undisturbed])
        self.assertEqual(self.weights("killed"), self.weights("undisturbed"))

    def test_without_progress_restarts_run_out(self):
        process = self.start("hopeless", "--max-restarts", 2, **{**FOUR_RANKS, "steps": 100000})
        for attempt in range(3):
            self.wait_for(lambda: len(self.ranks(process)) == 4, "four ranks")
            ranks = self.ranks(process)
            time.sleep(0.1 * attempt)  # also before they have connected
            os.kill(ranks[1], signal.SIGKILL)
            self.wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in ranks.values()), "every rank's end")
        _, stderr = process.communicate(timeout=LIMIT)
        self.assertEqual(process.returncode, 1, stderr)
        self.assertRegex(stderr, r"rank 1 killed .*: restart 2 of 2, from the beginning, as there is no checkpoint yet")
        self.assertIn("after 2 restarts, the last that --max-restarts allows", stderr)

    def test_the_users_mistake_is_no_reason_to_start_again(self):
        done = subprocess.run(self.command("none", "--max-restarts", 5, **{"data.path": "/nowhere"}), capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertNotIn("restart", done.stderr)

    def test_a_restart_never_continues_another_run(self):
        self.train("twice", **{"steps": 4, "checkpoint.every_steps": 2, "mesh.pipe": 1})
        refused = subprocess.run(self.command("twice", "--max-restarts", 2, **{"steps": 8, "mesh.pipe": 1}), capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual(refused.returncode, 2, refused.stderr)
        self.assertIn("holds checkpoints of an earlier run", refused.stderr)
        process = self.start("twice", "--overwrite", "--max-restarts", 1, **{"steps": 8, "mesh.pipe": 1})
        self.wait_for(lambda: self.ranks(process), "its rank")
        os.kill(self.ranks(process)[0], signal.SIGKILL)
        _, stderr = process.communicate(timeout=LIMIT)
        self.assertEqual(process.returncode, 0, stderr)
        self.assertIn("restart 1 of 1, from the beginning", stderr)

    def test_a_stop_signal_before_the_ranks_listen_ends_the_run_after_a_step(self):
        process = self.start("early", **{"steps": 100000, "mesh.pipe": 1})
        self.wait_for(lambda: self.ranks(process), "its rank")
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=LIMIT)
        self.assertEqual(process.returncode, 0, stderr)
        self.assertRegex(stdout, r"Stopped after \d+ steps")
        self.assertTrue((self.folder / "early" / "model" / "config.json").exists())

    def test_far_too_many_ranks_are_refused_before_they_start(self):
        done = subprocess.run(self.command("many", **{"steps": 1, "mesh.data": 10000}), capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertRegex(done.stderr, r"20000 ranks x omp_threads 1 on \d+ cores?: .*--oversubscribe")

    def test_a_run_that_is_over_has_nothing_new_to_report_when_it_is_started_again(self):
        settings = {"steps": 4, "checkpoint.every_steps": 2, "mesh.pipe": 1, "validation.every_steps": 1, "validation.batches": 1}
        self.train("over", **settings)
        self.train("over", "--auto-resume", **settings)
        self.assertEqual([r["step"] for r in self.reports("over")], [1, 2, 3, 4])

    def test_flags_that_contradict_each_other_are_refused(self):
        for flags in (["--resume", "--overwrite"], ["--auto-resume", "--overwrite"], ["--auto-resume", "--resume"]):
            done = subprocess.run(self.command("none", *flags), capture_output=True, text=True, timeout=LIMIT)
            self.assertEqual(done.returncode, 2, done.stderr)
        rank = {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        done = subprocess.run(self.command("none", "--max-restarts", 1), env=rank, capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("let that launcher start the job again, with --auto-resume", done.stderr)

    def test_a_stop_signal_is_no_reason_to_start_again(self):
        process = self.start("stopped", "--max-restarts", 3, **{"steps": 100000, "checkpoint.every_steps": 1000})
        self.wait_for(lambda: (self.folder / "stopped" / "metrics.jsonl").exists() and self.losses("stopped"), "the first report")
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=LIMIT)
        self.assertEqual(process.returncode, 0, stderr)
        self.assertNotIn("restart", stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
