"""Training by real processes: equal to one process, survives kill -9, never takes a torn checkpoint."""
import os
import pathlib
import signal
import struct
import subprocess
import time
import unittest

from train_case import BIN, HERE, TrainCase


def fields_of(message):
    """(number, value) of a Protocol Buffers message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        yield number, message[at:at + size]
        at += size


def scalars_of(content, tag):
    """The values of a tag in a TensorBoard event file."""
    values, at = [], 0
    while at < len(content):
        size = struct.unpack_from("<Q", content, at)[0]
        event = dict(fields_of(content[at + 12:at + 12 + size]))
        at += 16 + size
        for _, value in fields_of(event.get(5, b"")):
            value = dict(fields_of(value))
            if value[1].decode() == tag:
                values.append(struct.unpack("<f", value[2])[0])
    return values


class TrainTest(TrainCase):
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

    def test_checkpoints_are_listed_verified_and_exported(self):
        self.train("saved", **{"steps": 20, "checkpoint.every_steps": 10})

        def checkpoint(*arguments):
            return subprocess.run([BIN / "penstock", "checkpoint", *map(str, arguments)], capture_output=True, text=True, timeout=60)
        run = self.folder / "saved"
        listed = checkpoint("ls", run)
        self.assertEqual(listed.returncode, 0, listed.stderr)
        self.assertIn("step-00000010", listed.stdout)
        self.assertIn("step-00000020", listed.stdout)
        self.assertEqual(checkpoint("verify", run).stdout.count("intact"), 2)
        self.assertEqual(checkpoint("export", run, "--output", self.folder / "exported").returncode, 0)
        self.assertTrue((self.folder / "exported" / "config.json").exists())
        again = checkpoint("export", run, "--output", self.folder / "exported")
        self.assertEqual(again.returncode, 2)
        self.assertIn("exists", again.stderr)

        damaged = run / "checkpoints" / "step-00000020" / "stage-00001.safetensors"
        content = bytearray(damaged.read_bytes())
        content[-1] ^= 1
        damaged.write_bytes(content)
        found = checkpoint("verify", run)
        self.assertEqual(found.returncode, 1)
        self.assertRegex(found.stdout, r"step-00000010: intact\n.*step-00000020: DAMAGED: .*stage-00001.safetensors: tensor 'lm_head.weight.v'")
        self.assertNotEqual(checkpoint("export", run, "--output", self.folder / "again").returncode, 0)
        self.assertFalse((self.folder / "again").exists())
        self.assertEqual(checkpoint("ls", self.folder / "nothing").returncode, 2)

    def test_tensorboard_reads_the_same_losses(self):
        self.train("seen", **{"steps": 5, "validation.every_steps": 1, "validation.batches": 1})
        [file] = (self.folder / "seen" / "tensorboard").iterdir()
        self.assertEqual([round(v, 5) for v in scalars_of(file.read_bytes(), "loss")], [round(v, 5) for v in self.losses("seen")])

    def test_overlap_is_measured(self):
        bench = [BIN / "penstock", "bench", "overlap", HERE / "tiny.yaml", "--set", f"data.path={self.folder / 'text'}", "--set", f"output={self.folder / 'bench'}", "--set", "data.separator='%'", "--steps", "3"]
        done = subprocess.run([*bench, "--set", "mesh.data=2", "--set", "mesh.pipe=1", "--link-gigabytes", "0.01"], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"hidden: -?[0-9.]+ %")
        alone = subprocess.run(bench, capture_output=True, text=True, timeout=60)
        self.assertEqual(alone.returncode, 2)
        self.assertIn("mesh.data", alone.stderr)

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
        self.assertTrue((self.folder / "stopped" / "model" / "model.safetensors").exists())

    def test_bad_configuration_exits_2_and_names_file_line_and_key(self):
        config = self.folder / "bad.yaml"
        config.write_text((HERE / "tiny.yaml").read_text().replace("lr: 5.0e-3", "lr: fast").replace("steps: 60", "step: 60"))
        done = subprocess.run([BIN / "penstock", "train", config], capture_output=True, text=True, timeout=20)
        self.assertEqual(done.returncode, 2)
        self.assertRegex(done.stderr, r"bad\.yaml:\d+: .*(optimizer\.lr|'step')")

    def test_fp16_on_a_cpu_exits_2_and_says_what_to_use(self):
        done = subprocess.run(self.command("fp16", precision="fp16", device="cpu"), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("precision: fp16 needs a GPU, and device 'cpu' is the CPU", done.stderr)
        self.assertFalse((self.folder / "fp16").exists())

    def test_a_pipe_is_no_configuration(self):
        pipe = self.folder / "pipe.yaml"
        os.mkfifo(pipe)
        done = subprocess.run([BIN / "penstock", "train", pipe], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("pipe.yaml is a pipe or a device; expected a file", done.stderr)

    def test_missing_text_exits_2_and_names_the_path(self):
        done = subprocess.run(self.command("none", **{"data.path": "/nowhere"}), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("/nowhere", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
