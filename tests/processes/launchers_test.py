"""The 2 x 2 model under every launcher: the same losses and the same weights, bit by bit, as the ranks that `penstock train` starts itself."""
import os
import shutil
import subprocess
import unittest

from slurm_cluster import NoSlurm, SlurmCluster, free_port
from train_case import TrainCase

SETTINGS = {"mesh.data": 2, "mesh.pipe": 2, "steps": 20, "validation.every_steps": 1, "validation.batches": 1, "batch.microbatch_size": 1}
# What a launcher of the machine that runs the tests may have set.
FOREIGN = ("RANK", "WORLD_SIZE", "LOCAL_", "OMPI_", "PMI", "SLURM_", "MASTER_", "TORCHELASTIC_", "JOB_COMPLETION_INDEX", "PENSTOCK_JOB")


def clean_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


class LaunchersTest(TrainCase):
    def setUp(self):
        super().setUp()
        self.train("spawned", **SETTINGS)

    def outcome(self, name):
        weights = {p.name: p.read_bytes() for p in sorted((self.folder / name / "model").iterdir())}
        return self.losses(name), weights

    def expect_same_as_spawned(self, name):
        losses, weights = self.outcome(name)
        self.assertEqual(len(losses), 20)
        self.assertEqual((losses, weights), self.outcome("spawned"))

    def run_under(self, name, launcher, environment, timeout=120):
        done = subprocess.run([*launcher, *self.command(name, **SETTINGS)], env=environment, capture_output=True, text=True, timeout=timeout)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.expect_same_as_spawned(name)

    def start_ranks(self, name, environment_of):
        ranks = [subprocess.Popen(self.command(name, **SETTINGS), env={**clean_environment(), **environment_of(rank)}, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True) for rank in range(4)]
        for rank in ranks:
            self.addCleanup(rank.kill)
        texts = [rank.communicate(timeout=120)[0] for rank in ranks]
        self.assertEqual([rank.returncode for rank in ranks], [0] * 4, texts)
        self.expect_same_as_spawned(name)

    def test_torchruns_environment(self):
        port = free_port()
        self.start_ranks("torchrun", lambda rank: {
            "RANK": str(rank), "WORLD_SIZE": "4", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "one", "TORCHELASTIC_USE_AGENT_STORE": "False"})

    def test_the_environment_of_an_indexed_job(self):
        port = free_port()
        self.start_ranks("indexed", lambda rank: {"JOB_COMPLETION_INDEX": str(rank), "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)})

    @unittest.skipUnless(shutil.which("mpirun"), "mpirun is not installed (scripts/install-deps --dev)")
    def test_mpirun(self):
        as_root = ["--allow-run-as-root"] if os.getuid() == 0 else []
        self.run_under("mpirun", ["mpirun", *as_root, "--oversubscribe", "--bind-to", "none", "-np", "4"], clean_environment())

    def test_slurm(self):
        try:
            cluster = SlurmCluster()
        except NoSlurm as reason:
            self.skipTest(f"no private Slurm: {reason}")
        self.addCleanup(cluster.stop)
        environment = {name: value for name, value in cluster.environment.items() if name == "SLURM_CONF" or not name.startswith(FOREIGN)}
        self.run_under("srun", ["srun", "-n", "4", "--kill-on-bad-exit=1"], environment)


if __name__ == "__main__":
    unittest.main(verbosity=2)
