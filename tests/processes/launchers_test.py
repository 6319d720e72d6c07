"""The 2 x 2 model of ./quickstart under every launcher: the same losses and the same weights, bit by bit, as the ranks that `penstock train` starts itself.
Also after a rank was killed and the launcher, or its file of deploy/, has started the job again."""
import os
import pathlib
import shutil
import signal
import subprocess
import unittest

from slurm_cluster import NoSlurm, SlurmCluster, free_port
from train_case import BIN, LIMIT, TrainCase

SETTINGS = {"max_seconds": 0, "steps": 20, "validation.every_steps": 1, "validation.batches": 1, "batch.microbatch_size": 1, "batch.sequence_length": 64}
RESUMED = {**SETTINGS, "checkpoint.every_steps": 5}
DEPLOY = pathlib.Path(__file__).resolve().parent.parent.parent / "deploy"
# Starts --nproc_per_node ranks with torchrun's variables, and all of them again when one fails.
STAND_IN_FOR_TORCHRUN = """#!/usr/bin/env python3
import os, re, socket, subprocess, sys
options = dict(re.fullmatch(r"--(\\w+)=?(.*)", word).groups() for word in sys.argv[1:sys.argv.index("--no_python") + 1])
command = sys.argv[sys.argv.index("--no_python") + 1:]
assert "standalone" in options and os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1", (options, os.environ)
for restart in range(int(options["max_restarts"]) + 1):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    size = options["nproc_per_node"]
    place = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}
    ranks = [subprocess.Popen(command, env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(int(size))]
    if not any([rank.wait() for rank in ranks]):
        sys.exit(0)
sys.exit(1)
"""
# What a launcher of the machine that runs the tests may have set.
FOREIGN = ("RANK", "WORLD_SIZE", "LOCAL_", "OMPI_", "PMI", "SLURM_", "MASTER_", "TORCHELASTIC_", "JOB_COMPLETION_INDEX", "PENSTOCK_JOB")


def clean_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


class LauncherCase(TrainCase):
    configuration = DEPLOY.parent / "examples" / "quickstart.yaml"
    spawned = None  # losses and weights of the ranks that `penstock train` starts, once for all tests

    def setUp(self):
        super().setUp()
        if LauncherCase.spawned is None:
            self.train("spawned", **SETTINGS)
            LauncherCase.spawned = self.outcome("spawned")

    def outcome(self, name):
        weights = {p.name: p.read_bytes() for p in sorted((self.folder / name / "model").iterdir())}
        return self.losses(name), weights

    def expect_same_as_spawned(self, name):
        losses, weights = self.outcome(name)
        self.assertEqual(len(losses), 20)
        self.assertEqual((losses, weights), LauncherCase.spawned)

    def run_under(self, name, launcher, environment, timeout=LIMIT):
        done = subprocess.run([*launcher, *self.command(name, **SETTINGS)], env=environment, capture_output=True, text=True, timeout=timeout)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.expect_same_as_spawned(name)

    def start_ranks(self, name, environment_of):
        ranks = [subprocess.Popen(self.command(name, **SETTINGS), env={**clean_environment(), **environment_of(rank)}, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True) for rank in range(4)]
        for rank in ranks:
            self.addCleanup(rank.kill)
        texts = [rank.communicate(timeout=LIMIT)[0] for rank in ranks]
        self.assertEqual([rank.returncode for rank in ranks], [0] * 4, texts)
        self.expect_same_as_spawned(name)

    def arguments(self, name, **settings):
        """The command line without the program and its first argument."""
        return self.command(name, **settings)[2:]

    def kill_a_rank(self, name, launcher):
        """With SIGKILL, once there is a checkpoint."""
        def there():
            self.assertIsNone(launcher.poll(), "the launcher has ended before its time")
            return self.checkpoints(name)
        self.wait_for(there, "a checkpoint")
        os.kill(self.workers(name)[1], signal.SIGKILL)

    def start_launcher(self, command, environment, **options):
        process = subprocess.Popen([str(word) for word in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        return process

    def expect_end(self, process):
        text = process.communicate(timeout=LIMIT)[0]
        self.assertEqual(process.returncode, 0, text)
        return text


class EnvironmentsTest(LauncherCase):
    def test_torchruns_environment(self):
        port = free_port()
        self.start_ranks("torchrun", lambda rank: {
            "RANK": str(rank), "WORLD_SIZE": "4", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "one", "TORCHELASTIC_USE_AGENT_STORE": "False"})

    def test_a_rank_that_is_late_is_waited_for_by_name(self):
        place = {"WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        early = [self.start_launcher(self.command("late", **SETTINGS), {**clean_environment(), **place, "RANK": str(rank)}) for rank in (0, 1, 2)]
        heard = ""
        while "waiting for rank 3 of 4" not in heard:
            line = early[0].stdout.readline()
            self.assertTrue(line, heard)
            heard += line
        late = self.start_launcher(self.command("late", **SETTINGS), {**clean_environment(), **place, "RANK": "3"})
        for rank in [*early, late]:
            self.expect_end(rank)
        self.expect_same_as_spawned("late")

    def test_the_environment_of_an_indexed_job(self):
        port = free_port()
        self.start_ranks("indexed", lambda rank: {"JOB_COMPLETION_INDEX": str(rank), "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)})

    def test_a_pod_whose_manifest_says_pet_nnodes_is_an_agent(self):
        port = free_port()
        pods = [self.start_launcher([*self.command("pods", **RESUMED), "--oversubscribe"], {**clean_environment(), "JOB_COMPLETION_INDEX": str(index),
                                    "PET_NNODES": "2", "PET_RDZV_ENDPOINT": f"localhost:{port}"}) for index in range(2)]
        for pod in pods:
            self.expect_end(pod)
        self.expect_same_as_spawned("pods")

    def test_the_manifests_fit_what_a_rank_reads(self):
        try:
            import yaml
        except ImportError:
            self.skipTest("no yaml module (python3-yaml)")
        for name, variables in (("train", ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")), ("elastic", ("PET_NNODES", "PET_RDZV_ENDPOINT", "PET_RDZV_ID", "PET_MAX_RESTARTS"))):
            service, job = yaml.safe_load_all((DEPLOY / "kubernetes" / f"{name}.yaml").read_text())
            pod = job["spec"]["template"]
            [container] = pod["spec"]["containers"]
            given = {variable["name"]: variable["value"] for variable in container["env"]}
            self.assertEqual((service["kind"], job["kind"], job["apiVersion"]), ("Service", "Job", "batch/v1"))
            self.assertEqual(set(given), set(variables))
            self.assertEqual(job["spec"]["completions"], job["spec"]["parallelism"])
            self.assertEqual(str(job["spec"]["completions"]), given.get("WORLD_SIZE", given.get("PET_NNODES", ":").split(":")[-1]))
            self.assertEqual(service["spec"]["selector"], pod["metadata"]["labels"])
            # The first pod's name by the headless service: JOB-0.SERVICE.
            first = given.get("MASTER_ADDR", given.get("PET_RDZV_ENDPOINT", "").split(":")[0])
            self.assertEqual(first, f"{job['metadata']['name']}-0.{pod['spec']['subdomain']}")
            self.assertEqual(pod["spec"]["subdomain"], service["metadata"]["name"])
            self.assertIn("--auto-resume", container["command"])

    def test_the_file_for_torchrun(self):
        (self.folder / "torchrun").write_text(STAND_IN_FOR_TORCHRUN)
        (self.folder / "torchrun").chmod(0o755)
        environment = {**clean_environment(), "PATH": f"{self.folder}:{os.environ['PATH']}", "PENSTOCK": str(BIN / "penstock"), "PENSTOCK_RESTARTS": "1"}
        script = self.start_launcher([DEPLOY / "torchrun" / "train", *self.arguments("torchrun-again", **RESUMED)], environment)
        self.kill_a_rank("torchrun-again", script)
        self.assertIn("resuming from", self.expect_end(script))
        self.expect_same_as_spawned("torchrun-again")

    def test_a_world_that_the_mesh_does_not_fill_is_refused_by_every_rank(self):
        place = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        ranks = [self.start_launcher(self.command("three", **SETTINGS), {**clean_environment(), **place, "RANK": str(rank)}) for rank in range(3)]
        for rank in ranks:
            text = rank.communicate(timeout=LIMIT)[0]
            self.assertEqual(rank.returncode, 2, text)
            self.assertRegex(text, r"needs 4 ranks, the launcher started 3")

    def test_the_file_for_hosts_that_ssh_reaches(self):
        (self.folder / "ssh").write_text("#!/bin/sh\nexec sh -c \"$2\"\n")
        (self.folder / "ssh").chmod(0o755)
        (self.folder / "hosts").write_text("localhost  # the rendezvous\n127.0.0.1\n")
        environment = {**clean_environment(), "SSH": str(self.folder / "ssh"), "PENSTOCK": str(BIN / "penstock"), "PENSTOCK_PORT": str(free_port())}
        arguments = [self.folder / "hosts", *self.arguments("hosts-run", **RESUMED), "--max-restarts", "1", "--oversubscribe"]
        script = self.start_launcher([DEPLOY / "ssh" / "train-on-hosts", *arguments], environment)
        self.kill_a_rank("hosts-run", script)
        self.assertIn("restart 1 of 1", self.expect_end(script))
        self.expect_same_as_spawned("hosts-run")


class MpirunTest(LauncherCase):
    @unittest.skipUnless(shutil.which("mpirun"), "mpirun is not installed (scripts/install-deps --dev)")
    def test_mpirun_and_its_file_that_starts_a_job_again(self):
        as_root = ["--allow-run-as-root"] if os.getuid() == 0 else []
        mpirun_args = [*as_root, "--oversubscribe", "-np", "4"]
        self.run_under("mpirun", ["mpirun", *mpirun_args, "--bind-to", "none"], clean_environment())
        environment = {**clean_environment(), "MPIRUN_ARGS": " ".join(mpirun_args), "PENSTOCK": str(BIN / "penstock")}
        script = self.start_launcher([DEPLOY / "mpirun" / "train", *self.arguments("again", **RESUMED)], environment)
        self.kill_a_rank("again", script)
        self.assertIn("restart 1 of 3", self.expect_end(script))
        self.expect_same_as_spawned("again")


class SlurmTest(LauncherCase):
    def test_slurm(self):
        try:
            cluster = SlurmCluster()
        except NoSlurm as reason:
            self.skipTest(f"no private Slurm: {reason}")
        self.addCleanup(cluster.stop)
        environment = {name: value for name, value in cluster.environment.items() if name == "SLURM_CONF" or not name.startswith(FOREIGN)}
        self.run_under("srun", ["srun", "-n", "4", "--kill-on-bad-exit=1"], environment)
        environment["PENSTOCK"] = str(BIN / "penstock")
        sbatch = ["sbatch", "--wait", f"--output={self.folder}/job.log", "--nodes=1", "--ntasks-per-node=4"]
        job = self.start_launcher([*sbatch, DEPLOY / "slurm" / "train.sbatch", *self.arguments("batch", **RESUMED)], environment)
        self.kill_a_rank("batch", job)
        self.expect_end(job)
        log = (self.folder / "job.log").read_text()
        self.assertRegex(log, r"job \d+ queues itself again, number 1")
        self.assertIn("resuming from", log)
        self.expect_same_as_spawned("batch")
        self.run_an_agent(environment)

    def run_an_agent(self, environment):
        """One of the one node that there is: it starts the ranks, and starts them again when one is killed."""
        sbatch = ["sbatch", "--wait", f"--output={self.folder}/agent.log", "--nodes=1"]
        job = self.start_launcher([*sbatch, DEPLOY / "slurm" / "elastic.sbatch", *self.arguments("agent", **RESUMED)], environment)
        self.kill_a_rank("agent", job)
        self.expect_end(job)
        log = (self.folder / "agent.log").read_text()
        self.assertIn("restart 1 of 10", log)
        self.assertIn("resuming from", log)
        self.expect_same_as_spawned("agent")


if __name__ == "__main__":
    unittest.main(verbosity=2)
