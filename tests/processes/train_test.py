"""Training by real processes: equal to one process, survives kill -9, never takes a torn checkpoint."""
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import unittest

BIN = pathlib.Path(os.environ.get("PENSTOCK_BIN", "build/bin"))
HERE = pathlib.Path(__file__).resolve().parent


class TrainTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="penstock-train-")
        self.folder = pathlib.Path(self.temporary.name)
        text = "\n%\n".join(f"document {i * i} says: the quick brown fox jumps over {i} lazy dogs" for i in range(2000))
        (self.folder / "text").write_text(text)

    def tearDown(self):
        self.temporary.cleanup()

    def command(self, name, *arguments, **settings):
        settings = {"data.path": self.folder / "text", "data.separator": "'%'", "output": self.folder / name, **settings}
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        return [str(w) for w in [BIN / "penstock", "train", HERE / "tiny.yaml", "--quiet", *sets, *arguments]]

    def train(self, name, *arguments, **settings):
        done = subprocess.run(self.command(name, *arguments, **settings), capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def losses(self, name):
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    def start(self, name, *arguments, **settings):
        """A run in a process group of its own, and the process ids of its ranks."""
        process = subprocess.Popen(self.command(name, *arguments, **settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        return process

    def ranks(self, process):
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    environment = (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if parent == process.pid:
                    found.update({int(v[5:]): int(entry.name) for v in environment if v.startswith(b"RANK=")})
        return found

    def wait_for(self, condition, what, limit=60):
        end = time.monotonic() + limit
        while not condition():
            self.assertLess(time.monotonic(), end, f"{what}: not within {limit} s")
            time.sleep(0.01)

    def checkpoints(self, name):
        folder = self.folder / name / "checkpoints"
        return sorted(p.name for p in folder.glob("step-*") if not p.name.endswith(".writing")) if folder.exists() else []

    def test_four_processes_follow_one(self):
        # validation.every_steps=1 makes every step a report of its own.
        shared = {"steps": 20, "validation.every_steps": 1, "validation.batches": 1, "batch.microbatch_size": 2}
        self.train("one", **shared, **{"mesh.data": 1, "mesh.pipe": 1, "batch.microbatches": 4})
        self.train("four", **shared, **{"mesh.data": 2, "mesh.pipe": 2, "batch.microbatches": 2})
        one, four = self.losses("one"), self.losses("four")
        self.assertEqual(len(one), 20)
        self.assertEqual(len(four), 20)
        self.assertLess(max(abs(a - b) for a, b in zip(one, four)), 1e-5)

    def test_a_killed_rank_is_named_by_all_others_and_the_run_resumes(self):
        for victim in (3, 0):
            with self.subTest(rank=victim):
                name = f"killed-{victim}"
                process = self.start(name, **{"mesh.data": 2, "mesh.pipe": 2, "steps": 100000, "checkpoint.every_steps": 5})
                self.wait_for(lambda: len(self.checkpoints(name)) > 0, "the first checkpoint")
                ranks = self.ranks(process)
                self.assertEqual(sorted(ranks), [0, 1, 2, 3])
                os.kill(ranks[victim], signal.SIGKILL)
                killed = time.monotonic()
                self.wait_for(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in ranks.values()), "every rank's end", 20)
                self.assertLess(time.monotonic() - killed, 10)
                _, stderr = process.communicate(timeout=20)
                self.assertNotEqual(process.returncode, 0)
                for other in set(ranks) - {victim}:
                    self.assertRegex(stderr, rf"train rank {other}: leaving, because rank {victim}\b")
                step = int(self.checkpoints(name)[-1].split("-")[1])
                resumed = self.train(name, "--resume", **{"mesh.data": 2, "mesh.pipe": 2, "steps": step + 5, "checkpoint.every_steps": 5})
                self.assertRegex(resumed.stderr, rf"resuming from .*{self.checkpoints(name)[0][:5]}\d+ at step \d+")
                self.assertIn(f"after {step + 5} steps", resumed.stdout)

    def test_a_checkpoint_torn_by_kill_is_never_chosen(self):
        torn = 0
        for attempt in range(6):
            name = f"torn-{attempt}"
            process = self.start(name, **{"steps": 100000, "checkpoint.every_steps": 1, "mesh.pipe": 1})
            unfinished = self.folder / name / "checkpoints"
            self.wait_for(lambda: len(self.checkpoints(name)) > 0, "the first checkpoint")
            # Strike while a checkpoint is being written.
            self.wait_for(lambda: any(unfinished.glob("*.writing")), "a checkpoint under way")
            for pid in self.ranks(process).values():
                os.kill(pid, signal.SIGKILL)
            process.communicate(timeout=20)
            torn += bool(list(unfinished.glob("*.writing")))
            newest = int(self.checkpoints(name)[-1].split("-")[1])
            resumed = self.train(name, "--resume", **{"steps": newest + 1, "mesh.pipe": 1})
            self.assertRegex(resumed.stderr, rf"at step {newest}\b")
        self.assertGreater(torn, 0, "no attempt has caught a checkpoint half written")

    def test_a_stop_signal_ends_with_a_checkpoint_and_the_model(self):
        process = self.start("stopped", **{"steps": 100000, "checkpoint.every_steps": 1000})
        self.wait_for(lambda: (self.folder / "stopped" / "metrics.jsonl").exists() and self.losses("stopped"), "the first report")
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, stderr)
        self.assertIn("Stopped after", stdout)
        self.assertEqual(len(self.checkpoints("stopped")), 1)
        self.assertTrue((self.folder / "stopped" / "model" / "model.safetensors.index.json").exists())

    def test_bad_configuration_exits_2_and_names_file_line_and_key(self):
        config = self.folder / "bad.yaml"
        config.write_text((HERE / "tiny.yaml").read_text().replace("lr: 5.0e-3", "lr: fast").replace("steps: 60", "step: 60"))
        done = subprocess.run([BIN / "penstock", "train", config], capture_output=True, text=True, timeout=20)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r"bad\.yaml:\d+: .*(optimizer\.lr|'step')")

    def test_missing_text_exits_2_and_names_the_path(self):
        done = subprocess.run(self.command("none", **{"data.path": "/nowhere"}), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("/nowhere", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
