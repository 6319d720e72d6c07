"""What the tests of `penstock train` share: a text, a run folder, the command, its ranks and its results."""
import json
import os
import pathlib
import subprocess
import tempfile
import time
import unittest

BIN = pathlib.Path(os.environ.get("PENSTOCK_BIN", "build/bin"))
HERE = pathlib.Path(__file__).resolve().parent


# Seconds that no machine needs: the tests are about what happens, not about how soon.
LIMIT = 300


class TrainCase(unittest.TestCase):
    configuration = HERE / "tiny.yaml"

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
        return [str(w) for w in [BIN / "penstock", "train", self.configuration, "--quiet", *sets, *arguments]]

    def train(self, name, *arguments, **settings):
        done = subprocess.run(self.command(name, *arguments, **settings), capture_output=True, text=True, timeout=LIMIT)
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

    def workers(self, name):
        """Process ids of a run's ranks, whoever has started them."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if words and words[0].endswith(b"penstock-worker") and f"output={self.folder / name}".encode() in words:
                found.append(int(entry.name))
        return sorted(found)

    def wait_for(self, condition, what, limit=LIMIT):
        end = time.monotonic() + limit
        while not condition():
            self.assertLess(time.monotonic(), end, f"{what}: not within {limit} s")
            time.sleep(0.01)

    def checkpoints(self, name):
        folder = self.folder / name / "checkpoints"
        return sorted(p.name for p in folder.glob("step-*") if not p.name.endswith(".writing")) if folder.exists() else []
