"""Ranks that die at every phase, disks that fill up, folders that cannot be written, ranks that do not belong together."""
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import time
import unittest

from slurm_cluster import free_port
from train_case import BIN, TrainCase

FOUR_RANKS = {"mesh.data": 2, "mesh.pipe": 2, "batch.microbatch_size": 1, "checkpoint.every_steps": 4}


def may_mount():
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


def no_file_over_200_kib():
    resource.setrlimit(resource.RLIMIT_FSIZE, (200 << 10, 200 << 10))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


class FaultsTest(TrainCase):
    def verified(self, name):
        """The checkpoints of a run, all of which are intact."""
        done = subprocess.run([BIN / "penstock", "checkpoint", "verify", self.folder / name], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return re.findall(r"step-(\d+): intact", done.stdout)

    def kill_at(self, phase, victim=1, step=6, *arguments, **settings):
        name = "killed-" + phase.replace(" ", "-")
        process = subprocess.Popen(self.command(name, *arguments, **{**FOUR_RANKS, "steps": 8, **settings}), env={**os.environ, "PENSTOCK_TEST_FAULT": f"kill:{phase}:{victim}:{step}"},
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        ranks = {}

        def dead():
            ranks.update(self.ranks(process))
            return process.poll() is not None or (len(ranks) == 4 and not pathlib.Path(f"/proc/{ranks[victim]}/exe").exists())
        self.wait_for(dead, f"rank {victim}'s death at {phase}")
        died = time.monotonic()
        _, stderr = process.communicate(timeout=60)
        self.assertLess(time.monotonic() - died, 25, "the others leave within seconds, or are killed after ten")
        self.assertEqual(process.returncode, 1, stderr)
        self.assertIn(f"rank {victim} killed by signal 9", stderr)
        return name, stderr

    def test_a_rank_killed_at_any_phase_is_named_and_the_last_checkpoint_stays_good(self):
        self.train("begun", **{**FOUR_RANKS, "steps": 4})
        kills = [("data", 0, 6), ("forward", 1, 6), ("backward", 2, 6), ("reduction", 3, 6), ("optimizer", 1, 6), ("checkpoint copy", 2, 7), ("checkpoint write", 2, 7),
                 ("checkpoint write", 0, 7), ("validation", 3, 8), ("export", 1, 8)]
        if os.environ.get("PENSTOCK_KILL_EVERY_RANK"):  # takes four times as long
            kills = sorted({(phase, victim, step) for phase, _, step in kills for victim in range(4)})
        for phase, victim, step in kills:
            with self.subTest(phase=phase, rank=victim):
                shutil.copytree(self.folder / "begun", self.folder / ("killed-" + phase.replace(" ", "-")))
                name, stderr = self.kill_at(phase, victim, step, "--resume")
                for other in {0, 1, 2, 3} - {victim}:
                    self.assertRegex(stderr, rf"train rank {other}: leaving, because rank {victim}\b")
                self.assertIn("00000004", self.verified(name))
                self.assertTrue((self.folder / name / "flight").exists())
                resumed = self.train(name, "--resume", **{**FOUR_RANKS, "steps": 8})
                self.assertIn("after 8 steps", resumed.stdout)
                shutil.rmtree(self.folder / name)

    def test_a_rank_killed_before_all_have_met_ends_the_others_too(self):
        for victim in range(4) if os.environ.get("PENSTOCK_KILL_EVERY_RANK") else [2]:
            with self.subTest(rank=victim):
                shutil.rmtree(self.folder / "killed-rendezvous", ignore_errors=True)
                self.kill_at("rendezvous", victim)

    def test_a_timeline_is_there_when_a_run_fails_later(self):
        name, _ = self.kill_at("forward", victim=1, step=20, **{"steps": 30})
        trace = json.loads((self.folder / name / "timeline.json").read_text())["traceEvents"]
        self.assertEqual({e["pid"] for e in trace}, {0, 1, 2, 3})
        self.assertTrue({"forward", "backward", "reduction", "receive"} <= {e.get("cat") for e in trace})

    def test_a_checkpoint_that_does_not_fit_ends_the_run_and_leaves_the_one_before(self):
        settings = {"steps": 8, "checkpoint.every_steps": 4}
        self.train("full", **settings)
        done = subprocess.run(self.command("full", "--resume", **{**settings, "steps": 16}), preexec_fn=no_file_over_200_kib, restore_signals=False, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"checkpoint of step-00000012: cannot write .*stage-0000\d.safetensors.*: File too large")
        self.assertEqual(self.verified("full"), ["00000004", "00000008"])

    def test_a_model_that_does_not_fit_is_a_clear_error_and_leaves_no_half_of_it(self):
        done = subprocess.run(self.command("export", **{"steps": 4, "checkpoint.every_steps": 0}), preexec_fn=no_file_over_200_kib, restore_signals=False, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"cannot write .*model.*: File too large")
        self.assertFalse((self.folder / "export" / "model" / "model.safetensors").exists())

    def test_an_export_that_does_not_fit_leaves_nothing(self):
        self.train("exported", **{"steps": 4, "checkpoint.every_steps": 4})

        def export(to, **options):
            return subprocess.run([BIN / "penstock", "checkpoint", "export", self.folder / "exported", "--output", to], capture_output=True, text=True, timeout=60, **options)
        done = export(self.folder / "none", preexec_fn=no_file_over_200_kib, restore_signals=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"cannot write .*none\.writing/.*: File too large")
        self.assertFalse((self.folder / "none.writing").exists())
        done = export("/proc/penstock")
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, r"cannot change /proc/penstock\.writing: ")

    @unittest.skipUnless(may_mount(), "no permission to mount a file system")
    def test_a_full_disk_is_one_clear_error(self):
        mounted = self.folder / "small"
        mounted.mkdir()
        command = self.command("small/run", **{"steps": 1000000, "validation.every_steps": 1, "validation.batches": 1})
        process = subprocess.Popen(["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=4m none "{mounted}" && exec "$@"', "sh", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        seen = pathlib.Path(f"/proc/{process.pid}/root") / mounted.relative_to("/")
        self.wait_for(lambda: (seen / "run" / "metrics.jsonl").exists() and (seen / "run" / "metrics.jsonl").stat().st_size > 0, "the first report")
        with self.assertRaises(OSError), open(seen / "fill", "wb", buffering=0) as fill:
            while True:
                fill.write(bytes(4096))
        stdout, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, stdout + stderr)
        self.assertRegex(stderr, r"cannot write .*small/run/(metrics\.jsonl; is the disk full\?|tensorboard/)")

    @unittest.skipUnless(may_mount(), "no permission to mount a file system")
    def test_a_read_only_run_folder_is_one_clear_error(self):
        (self.folder / "fixed").mkdir()
        command = self.command("fixed")
        done = subprocess.run(["unshare", "-m", "sh", "-c", f'mount --bind -o ro "{self.folder}/fixed" "{self.folder}/fixed" && mount -o remount,ro,bind "{self.folder}/fixed" && exec "$@"', "sh", *command],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"output: cannot write into .*fixed: Read-only file system")

    @unittest.skipUnless(may_mount(), "no permission to mount a file system")
    def test_checkpoints_that_cannot_be_written_are_told_before_the_first_step(self):
        settings = {"steps": 4, "checkpoint.every_steps": 4}
        self.train("kept", **settings)
        kept = self.folder / "kept" / "checkpoints"
        command = self.command("kept", "--resume", **{**settings, "steps": 1000000, "checkpoint.every_steps": 500000})
        done = subprocess.run(["unshare", "-m", "sh", "-c", f'mount --bind "{kept}" "{kept}" && mount -o remount,ro,bind "{kept}" && exec "$@"', "sh", *command], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"output: cannot write into .*kept/checkpoints: Read-only file system")
        self.assertEqual(self.verified("kept"), ["00000004"])

    def test_a_run_folder_that_cannot_be_made_is_the_users_mistake(self):
        done = subprocess.run(self.command("none", **{"output": "/proc/penstock"}), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("output: cannot make the run folder /proc/penstock", done.stderr)

    def test_a_mistake_that_every_rank_sees_is_said_once(self):
        for settings, code, said in (({"data.path": "/nonexistent/text"}, 2, "/nonexistent/text"), ({"memory_limit_gib": 0.00001}, 2, "memory")):
            with self.subTest(**settings):
                done = subprocess.run(self.command("mistaken", **{**FOUR_RANKS, **settings}), capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertEqual(len([line for line in done.stderr.splitlines() if said in line]), 1, done.stderr)

    def test_a_flipped_byte_stops_a_resume_and_names_the_tensor(self):
        self.train("flipped", **{"steps": 8, "checkpoint.every_steps": 4})
        file = self.folder / "flipped" / "checkpoints" / "step-00000008" / "stage-00000.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        done = subprocess.run(self.command("flipped", "--resume", **{"steps": 12}), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2, "whoever starts it again changes nothing: " + done.stderr)
        self.assertRegex(done.stderr, r"step-00000008/stage-00000\.safetensors: tensor '[\w.]+' is damaged: checksum .*; move .*/step-00000008 away, and --resume continues from step 4 ")
        self.assertNotIn("continues from step 8", done.stderr)
        shutil.rmtree(file.parent)
        self.assertIn("at step 4", self.train("flipped", "--resume", **{"steps": 12}).stderr)

    def start_pair(self, commands, environments=({}, {})):
        """Two ranks of another launcher, each with a command of its own; their exit codes and what they said."""
        port = free_port()
        ranks = [subprocess.Popen(command, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                                                **environments[rank]}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for rank, command in enumerate(commands)]
        for rank in ranks:
            self.addCleanup(rank.kill)
        texts = [rank.communicate(timeout=60)[0] for rank in ranks]
        return [rank.returncode for rank in ranks], texts

    def test_a_rank_with_another_configuration_is_refused_with_key_and_values(self):
        codes, texts = self.start_pair([self.command("odd"), self.command("odd", **{"optimizer.lr": "0.25", "batch.microbatches": 6})])
        self.assertIn(2, codes)
        self.assertTrue(set(codes) <= {2, 75}, codes)
        for text in texts:
            self.assertRegex(text, r"rank 1 differs from rank 0: batch\.microbatches is 6, on rank 0 2; optimizer\.lr is 0\.25, on rank 0 0\.005; start all ranks")
        self.assertFalse((self.folder / "odd").exists(), "nothing was begun")

    def test_a_rank_of_another_build_is_refused(self):
        other = self.folder / "penstock-worker"
        content = bytearray((BIN / "penstock-worker").read_bytes())
        note = content.index(b"\x03\0\0\0GNU\0")  # type and name of the build id's note
        content[note + 8] ^= 1
        other.write_bytes(content)
        other.chmod(0o755)
        codes, texts = self.start_pair([self.command("built")] * 2, ({}, {"PENSTOCK_WORKER": str(other)}))
        self.assertIn(2, codes)
        for text in texts:
            self.assertRegex(text, r"rank 1 differs from rank 0: the program is [\d.]+ \(build [0-9a-f]+\), on rank 0 [\d.]+ \(build [0-9a-f]+\)")

    def test_a_slow_rank_is_named_in_metrics_and_summary(self):
        os.environ["PENSTOCK_TEST_FAULT"] = "60:forward:1:1"
        self.addCleanup(os.environ.pop, "PENSTOCK_TEST_FAULT", None)
        done = self.train("slow", **{"mesh.data": 2, "mesh.pipe": 1, "steps": 22, "batch.microbatch_size": 1, "validation.every_steps": 1, "validation.batches": 1})
        self.assertRegex(done.stdout, r"rank 1 computed [0-9.]+ times as long as the other replicas of its stage")
        last = json.loads((self.folder / "slow" / "metrics.jsonl").read_text().splitlines()[-1])
        self.assertEqual(last["straggler_rank"], 1)
        self.assertGreater(last["straggler_factor"], 1.3)

    def test_the_summary_says_where_time_and_memory_went(self):
        done = self.train("seen", **{"mesh.data": 2, "steps": 20, "checkpoint.every_steps": 10})
        table = dict(re.findall(r"^    (\w[\w ]*?) +([0-9.]+) s +[0-9.]+ %$", done.stdout, re.MULTILINE))
        self.assertTrue({"compute", "waiting for stages", "optimizer", "wall time"} <= set(table), done.stdout)
        parts = sum(float(seconds) for name, seconds in table.items() if name != "wall time")
        self.assertAlmostEqual(parts, float(table["wall time"]), delta=0.06 * len(table))  # each is rounded to 0.1
        self.assertRegex(done.stdout, r"memory of the largest rank \d+ MiB: weights [0-9.]+, gradients [0-9.]+, optimizer [0-9.]+")
        last = json.loads((self.folder / "seen" / "metrics.jsonl").read_text().splitlines()[-1])
        self.assertGreater(last["peak_memory_bytes"], 1 << 20)


if __name__ == "__main__":
    unittest.main(verbosity=2)
