"""The network keys of a training configuration: what they choose, and what they cannot."""
import json
import os
import shutil
import socket
import struct
import subprocess
import unittest

from slurm_cluster import free_port
from train_case import BIN, TrainCase

SETTINGS = {"mesh.data": 2, "steps": 2, "validation.every_steps": 1, "validation.batches": 1}  # so that every step is reported


class NetworkTest(TrainCase):
    def failure(self, **settings):
        done = subprocess.run(self.command("run", **SETTINGS, **settings), capture_output=True, text=True, timeout=120)
        self.assertNotEqual(done.returncode, 0)
        return done.stdout + done.stderr

    def test_a_run_on_a_chosen_interface_and_port(self):
        self.train("chosen", **SETTINGS, **{"network.interface": "lo", "network.master_port": free_port()})
        self.train("named", **SETTINGS, **{"network.hostname": "localhost"})
        self.train("plain", **SETTINGS)
        self.assertEqual(self.losses("chosen"), self.losses("plain"))
        self.assertEqual(self.losses("named"), self.losses("plain"))

    def test_an_interface_that_does_not_exist_is_named_with_those_that_do(self):
        text = self.failure(**{"network.interface": "nosuch0"})
        self.assertIn("'nosuch0'", text)
        self.assertIn("it has lo", text)

    def test_a_port_that_is_taken_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assertIn(f"127.0.0.1:{port}", self.failure(**{"network.master_port": port}))

    def test_a_rank_waits_for_the_others_as_long_as_it_is_told(self):
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        for rank, waits_for in ((0, r"1 of 2 ranks of group 'world' .* within 1.5 s \(network.connect_timeout_seconds\): rank 1"),
                                (1, r"rank 1 could not reach rank 0's store at 127.0.0.1:\d+ within 1.5 s \(network.connect_timeout_seconds\)")):
            command = self.command("alone", **SETTINGS, **{"network.connect_timeout_seconds": 1.5, "mesh.pipe": 1})
            done = subprocess.run(command, env={**os.environ, **place, "RANK": str(rank)}, capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertRegex(done.stderr, waits_for)

    def run_on_two_machines(self, name, *arguments, of_rank=({}, {}), **settings):
        """As a launcher would start them, one rank on each of what they take for two machines."""
        port = free_port()
        place = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks = [subprocess.Popen(self.command(name, *arguments, **{**SETTINGS, "steps": 10}, **settings, **{"mesh.pipe": 1, **of_rank[rank]}), stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, env={**os.environ, **place, "RANK": str(rank), "PENSTOCK_HOST_ID": f"machine-{rank}"})
                 for rank in range(2)]
        for rank in ranks:
            self.addCleanup(rank.kill)
        texts = [rank.communicate(timeout=120)[0] for rank in ranks]
        self.assertEqual([rank.returncode for rank in ranks], [0, 0], texts)
        return self.losses(name)

    def test_machines_may_have_names_and_interfaces_of_their_own(self):
        self.assertTrue(self.run_on_two_machines("named", of_rank=({"network.hostname": "127.0.0.1"}, {"network.interface": "lo"})))

    def test_gradients_that_travel_as_bfloat16_between_machines(self):
        on_loopback = {"network.interface": "lo"}
        plain, rounded = self.run_on_two_machines("plain", **on_loopback), self.run_on_two_machines("rounded", reduce_dtype="bf16", **on_loopback)
        self.assertNotEqual(rounded, plain, "nothing was rounded")
        for a, b in zip(rounded, plain):
            self.assertAlmostEqual(a, b, delta=0.01)

    def test_a_run_with_rounded_gradients_resumes_bit_for_bit(self):
        settings = {"reduce_dtype": "bf16", "sharding": "optimizer", "network.interface": "lo", "checkpoint.every_steps": 5}
        self.run_on_two_machines("whole", **settings)
        shutil.copytree(self.folder / "whole", self.folder / "again")
        shutil.rmtree(self.folder / "again" / "checkpoints" / "step-00000010")
        self.run_on_two_machines("again", "--resume", **settings)
        model = (self.folder / "whole" / "model" / "model.safetensors").read_bytes()
        self.assertEqual((self.folder / "again" / "model" / "model.safetensors").read_bytes(), model)
        done = subprocess.run([BIN / "penstock", "checkpoint", "export", self.folder / "whole", "--output", self.folder / "exported"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.names_in(self.folder / "exported" / "model.safetensors"), self.names_in(self.folder / "whole" / "model" / "model.safetensors"))

    def names_in(self, file):
        content = file.read_bytes()
        return set(json.loads(content[8:8 + struct.unpack_from("<Q", content)[0]])) - {"__metadata__"}


if __name__ == "__main__":
    unittest.main(verbosity=2)
