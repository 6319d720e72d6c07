"""`penstock data` as people run it: what it writes, what it refuses, and with which exit code."""
import json
import os
import resource
import signal
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

PENSTOCK = Path(os.environ["PENSTOCK_BIN"]) / "penstock"


class DataTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "in").mkdir()
        (self.folder / "in" / "a.txt").write_text("\n%\n".join(f"document {i}" for i in range(50)))
        (self.folder / "in" / "b.jsonl").write_text("".join(json.dumps({"text": f"line {i}"}) + "\n" for i in range(50)))
        self.out = self.folder / "out"

    def data(self, *arguments, **options):
        return subprocess.run([PENSTOCK, "data", *map(str, arguments)], capture_output=True, text=True, timeout=60, **options)

    def prepare(self, *arguments, **options):
        return self.data("prepare", self.folder / "in", "--output", self.out, *arguments, **options)

    def assert_refused(self, done, code, *words):
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertFalse((self.folder / "out.writing").exists(), "left behind")

    def test_prepares_says_what_is_there_and_verifies(self):
        done = self.prepare("--validation-fraction", "0.2")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{self.out}: text, vocabulary of 257", done.stdout)
        manifest = json.loads((self.out / "tokens.json").read_text())
        self.assertEqual(manifest["train"]["documents"], 80)
        self.assertEqual(manifest["validation"]["documents"], 20)
        header = struct.unpack("<8sIIQQQQIIII", (self.out / "train-00000.tokens").read_bytes()[:64])
        self.assertEqual(header[:5], (b"PNSTKTOK", 1, 2, manifest["train"]["tokens"], 80))
        info = self.data("info", self.out)
        self.assertEqual(info.returncode, 0, info.stderr)
        self.assertRegex(info.stdout, r"train +\d+ +80 ")
        self.assertEqual(self.data("verify", self.out).stdout, f"{self.out}: intact\n")
        self.assertTrue((self.out / "tokenizer" / "tokenizer.json").exists())

    def test_damage_is_found(self):
        self.prepare()
        shard = self.out / "train-00000.tokens"
        good = shard.read_bytes()
        shard.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
        self.assertEqual(self.data("info", self.out).returncode, 0)
        self.assert_refused(self.data("verify", self.out), 1, "train-00000.tokens", "checksum")
        shard.write_bytes(good[:-8])
        self.assert_refused(self.data("info", self.out), 1, "train-00000.tokens", "cut short")
        shard.write_bytes(good[:20] + b"\xff" + good[21:])
        self.assert_refused(self.data("info", self.out), 1, "train-00000.tokens", "header is damaged")
        self.assert_refused(self.data("info", self.folder / "in"), 2, "no prepared data")

    def test_bad_input_is_named(self):
        self.assert_refused(self.data("prepare"), 2)
        for flags in (["--threads", "0"], ["--threads", "many"], ["--format", "csv"], ["--validation-fraction", "1"], ["--shard-mib", "0"],
                      ["--nonsense"], ["--validation", "x", "--validation-fraction", "0.1"]):
            self.assert_refused(self.prepare(*flags), 2, flags[0])
        self.assert_refused(self.prepare("--tokenizer", self.folder / "in"), 2, "tokenizer.json")
        self.assert_refused(self.data("prepare", self.folder / "none", "--output", self.out), 2, "does not exist")
        with open(self.folder / "in" / "b.jsonl", "a") as file:
            file.write("{\"text\": 5}\n")
        self.assert_refused(self.prepare(), 2, "b.jsonl:51: key 'text': expected a text, found 5")

    def test_a_folder_that_is_there_stays(self):
        self.assertEqual(self.prepare().returncode, 0)
        self.assert_refused(self.prepare(), 2, "already there", "--overwrite")
        self.assertEqual(self.prepare("--overwrite").returncode, 0)
        self.assert_refused(self.data("prepare", self.folder / "in" / "a.txt", "--output", self.folder / "in", "--overwrite"), 2, "not replaced")

    def test_folders_above_the_output_are_made(self):
        self.out = self.folder / "data" / "new" / "out"
        self.assertEqual(self.prepare().returncode, 0)
        self.assertEqual(self.data("verify", self.out).returncode, 0)

    def test_an_output_in_the_current_folder(self):
        self.assertEqual(self.data("prepare", "in", "--output", "here", cwd=self.folder).returncode, 0)
        self.assertEqual(self.data("verify", "here", cwd=self.folder).returncode, 0)

    def test_what_a_killed_one_left_is_no_data_and_in_nobodys_way(self):
        (self.folder / "in" / "large").write_text("%\n".join(["x" * 1000 + "\n"] * 100000))
        process = subprocess.Popen([PENSTOCK, "data", "prepare", self.folder / "in", "--output", self.out, "--threads", "1"], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not (self.folder / "out.writing" / "train-00000.tokens").exists():
            self.assertLess(time.monotonic(), end)
            self.assertIsNone(process.poll())
            time.sleep(0.001)
        process.kill()
        process.wait()
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["in", "out.writing"])
        done = self.data("info", self.folder / "out.writing")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("no prepared data", done.stderr)
        (self.folder / "in" / "large").unlink()
        self.assertEqual(self.prepare().returncode, 0)
        self.assertEqual(self.data("verify", self.out).returncode, 0)
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["in", "out"])

    def test_too_few_documents_to_hold_some_out_are_told(self):
        (self.folder / "in" / "b.jsonl").unlink()
        done = self.prepare("--separator", "")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("nothing is held out", done.stdout)
        self.assert_refused(self.prepare("--overwrite", "--validation-fraction", "0.999", "--separator", ""), 2, "all 1 documents are held out")

    def test_a_disk_that_is_full_leaves_nothing(self):
        (self.folder / "in" / "large").write_text("x" * (3 << 20))

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        # Python ignores SIGXFSZ, and so does what it starts without restore_signals: a write then fails as on a full disk.
        self.assert_refused(self.prepare(preexec_fn=limit, restore_signals=False), 1, "cannot write", "train-00000.tokens")
        self.assertFalse(self.out.exists())

    @unittest.skipIf(os.geteuid() == 0, "root may write anywhere")
    def test_a_read_only_folder_is_named(self):
        self.folder.chmod(0o555)
        self.addCleanup(self.folder.chmod, 0o755)
        self.assert_refused(self.prepare(), 1, "cannot create", "out.writing")

    def test_a_stop_signal_leaves_nothing(self):
        (self.folder / "in" / "large").write_text("%\n".join(["x" * 1000 + "\n"] * 100000))
        process = subprocess.Popen([PENSTOCK, "data", "prepare", self.folder / "in", "--output", self.out, "--threads", "1"], stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 30
        while not (self.folder / "out.writing" / "train-00000.tokens").exists():
            self.assertLess(time.monotonic(), end)
            self.assertIsNone(process.poll())
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1, stderr)
        self.assertIn("stopped", stderr)
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["in"])


if __name__ == "__main__":
    unittest.main()
