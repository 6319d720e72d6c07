"""Worker groups from outside: their devices, their number, their environment, their end."""
import re
import unittest

import grpc

from penstock_server import FAKE_WORKER, Client, Server, wire


def variables_of(pid):
    with open(f"/proc/{pid}/environ", "rb") as file:
        return dict(entry.split("=", 1) for entry in file.read().decode().split("\0") if "=" in entry)


@unittest.skipUnless(FAKE_WORKER, "needs workers that do not touch their devices")
class EmulatedDevicesTest(unittest.TestCase):
    def start(self, config, **variables):
        server = Server(config=config, environment=variables.items(), stages=4, device="gpu")
        self.addCleanup(server.close)
        return server

    def visible(self, server):
        """What the processes see, each group once."""
        return sorted({variables_of(pid)["CUDA_VISIBLE_DEVICES"] for pid in server.worker_pids()})

    def test_eight_devices_are_two_groups_of_four(self):
        server = self.start("", PENSTOCK_TEST_DEVICES="8")
        self.assertIn("GPU 0,1,2,3", server.stdout)
        manager = Client(server.management_address)
        self.addCleanup(manager.close)

        def scale(workers):
            return manager.manage("ScaleWorker", wire.ScaleWorkerRequest(model_name="tiny", min_worker=workers, synchronous=True))
        scale(2)
        self.assertEqual(self.visible(server), ["0,1,2,3", "4,5,6,7"])
        with self.assertRaises(grpc.RpcError) as raised:
            scale(3)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.INTERNAL)
        self.assertIn("Error while creating workers: model 'tiny': worker group 2 needs 4 GPU(s)", raised.exception.details())
        self.assertEqual(self.visible(server), ["0,1,2,3", "4,5,6,7"])

    def test_an_inherited_list_is_renumbered_not_overwritten(self):
        server = self.start("deviceIds: [1, 2, 3, 4]\n", PENSTOCK_TEST_DEVICES="8", CUDA_VISIBLE_DEVICES="7,6,5,4,3")
        self.assertEqual(self.visible(server), ["6,5,4,3"])

    def test_too_few_devices_stop_the_start(self):
        server = Server(wait=False, environment={"PENSTOCK_TEST_DEVICES": "3"}.items(), stages=4, device="gpu")
        self.addCleanup(server.close)
        self.assertNotEqual(server.wait_ended(30), 0)
        self.assertIn("needs 4 GPU(s)", server.stderr)
        self.assertIn("found 3 free of 3", server.stderr)


@unittest.skipUnless(FAKE_WORKER, "needs workers that do not compute")
class CpuGroupTest(unittest.TestCase):
    def test_ranks_compute_on_cores_of_their_own_where_there_are_enough(self):
        server = Server(config="torchrun:\n  OMP_NUMBER_THREADS: 1\n")
        self.addCleanup(server.close)
        sets = []
        for pid in server.worker_pids():
            self.assertEqual(variables_of(pid)["OMP_NUM_THREADS"], "1")
            self.assertEqual(variables_of(pid)["CUDA_VISIBLE_DEVICES"], "")
            with open(f"/proc/{pid}/status") as file:
                sets.append(re.search(r"Cpus_allowed_list:\s+(\S+)", file.read()).group(1))
        self.assertEqual(len(sets), 2)
        if "shares its cores" not in server.stderr:
            self.assertNotEqual(*sets)
            self.assertTrue(all(text.isdigit() for text in sets), sets)
