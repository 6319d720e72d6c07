"""Worker groups from outside: their devices, their number, their environment, their end."""
import json
import os
import pathlib
import re
import shutil
import signal
import tempfile
import threading
import unittest

import grpc

from penstock_server import FAKE_WORKER, INFERENCE, LONG, Client, Server, ServerTest, make_model, request, wait_until, wire


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


class ParallelTypeTest(unittest.TestCase):
    def start(self, parallel, wait=True):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-parallel-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        model = make_model(folder / "tiny")
        config = model / "model-config.yaml"
        config.write_text(config.read_text().replace("parallelType: pp", f"parallelType: {parallel}"))
        server = Server(models=(), arguments=("--models", f"tiny={model}"), wait=wait)
        self.addCleanup(server.close)
        return server

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that takes any number")
    def test_every_rank_is_told_how_many_share_a_layer_and_rank_0_takes_the_requests(self):
        for parallel in ("tp", "pptp"):
            server = self.start(parallel)
            for pid in server.worker_pids():
                arguments = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                self.assertEqual(arguments[arguments.index("--tensor-ranks") + 1], "2")
            self.assertEqual(sorted(server.worker_pids().values()), [0, 1])
            self.assertEqual(server.client.stream_text(request(prompt="a b", max_tokens=2)), ["a ", "b "])
            server.close()

    def test_text_generation_is_not_one_process_with_several_devices(self):
        server = self.start("custom", wait=False)
        self.assertEqual(server.wait_ended(30), 2)
        self.assertIn("parallelType custom is for handlers that use several GPUs from one process; 'llm' takes pp, tp and pptp", server.stderr)


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


class DtypeTest(unittest.TestCase):
    def test_the_worker_knows_every_dtype_of_a_models_file(self):
        for dtype in ("fp32", "bf16"):
            server = Server(config=f"handler:\n  dtype: {dtype}\n")
            self.addCleanup(server.close)
            self.assertTrue(server.client.stream_text(request(prompt="a b", max_tokens=2)), dtype)


@unittest.skipUnless(FAKE_WORKER, "needs a slow worker")
class ScalingTest(unittest.TestCase):
    """Groups of two ranks that run one request each, one to three of them."""

    def test_groups_come_while_requests_wait_and_go_when_they_are_not_needed(self):
        server = Server(config="maxWorkers: 3\nscaleUpAfterMSec: 300\nscaleDownAfterMSec: 500\nhandler:\n  max_concurrent: 1\n",
                        environment={"FAKE_WORKER_STEP_MS": "20"}.items())
        self.addCleanup(server.close)
        calls = [server.client.stream(request(prompt="a b", max_tokens=LONG), timeout=120) for _ in range(5)]
        wait_until(lambda: len(server.worker_pids()) == 6, 30, "there are three groups")
        running = [call for call in calls if call.is_active()]
        self.assertEqual(len(running), 5)
        for call in calls:
            call.cancel()
        wait_until(lambda: len(server.worker_pids()) == 2, 30, "one group is left")
        self.assertIn("from 1 to 2 worker group(s), of 3 at most", server.stderr)
        self.assertIn("from 2 to 1 group(s), of 1 at least", server.stderr)
        self.assertTrue(server.client.stream_text(request(prompt="again", max_tokens=3), timeout=15))

    def test_without_devices_for_another_group_the_model_goes_on_with_what_it_has(self):
        server = Server(config="maxWorkers: 3\nscaleUpAfterMSec: 100\nhandler:\n  max_concurrent: 1\n", device="gpu",
                        environment={"FAKE_WORKER_STEP_MS": "20", "PENSTOCK_TEST_DEVICES": "3"}.items())
        self.addCleanup(server.close)
        calls = [server.client.stream(request(prompt="a b", max_tokens=30), timeout=60) for _ in range(3)]
        wait_until(lambda: "it is tried again while requests wait" in server.stderr, 20, "the log says why there is no second group")
        for call in calls:
            self.assertEqual(len(list(call)), 30)
        self.assertEqual(len(server.worker_pids()), 2)


@unittest.skipUnless(FAKE_WORKER, "needs workers that can be silent")
class SilentWorkerTest(unittest.TestCase):
    def setUp(self):
        self.server = Server(config="responseTimeout: 1\n")
        self.addCleanup(self.server.close)

    def assert_no_word(self, prompt):
        with self.assertRaises(grpc.RpcError) as raised:
            self.server.client.predict(request(prompt=prompt, max_tokens=3), timeout=30)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertIn("responseTimeout", raised.exception.details())

    def answers(self):
        return bool(self.server.client.stream_text(request(prompt="again", max_tokens=3), timeout=15))

    def test_a_slow_answer_costs_its_request_and_not_the_worker(self):
        before = self.server.worker_pids()
        self.assert_no_word("[hang] x")
        self.assertTrue(self.answers())
        self.assert_no_word("[hang] x")
        self.assertTrue(self.answers())
        self.assertEqual(self.server.worker_pids(), before)

    def test_a_worker_that_stays_silent_is_started_anew(self):
        before = self.server.ranks()
        os.kill(before[0], signal.SIGSTOP)
        self.assert_no_word("x")
        self.assert_no_word("x")
        wait_until(lambda: before[0] not in self.server.worker_pids(), 10, "the silent worker is ended")
        wait_until(lambda: self.server.client.health("tiny") == 1, 20, "the model serves again")
        self.assertTrue(self.answers())
        self.assertIn("two requests in a row without a word", self.server.stderr)


@unittest.skipUnless(FAKE_WORKER, "needs a slow worker")
class PriorityTest(ServerTest):
    config = "handler:\n  max_concurrent: 1\n"
    environment = {"FAKE_WORKER_STEP_MS": "20"}.items()

    def stream(self, priority, **data):
        method = self.client.channel.unary_stream(INFERENCE + "StreamPredictions", request_serializer=lambda m: m.SerializeToString(),
                                                  response_deserializer=wire.PredictionResponse.FromString)
        return method(request(**data), timeout=60, metadata=[("x-priority", priority)])

    def test_a_request_of_higher_priority_goes_first(self):
        manager = Client(self.server.management_address)
        self.addCleanup(manager.close)

        def pending():
            described = json.loads(manager.manage("DescribeModel", wire.ModelRequest(model_name="tiny")))
            return described[0]["jobQueueStatus"]["pendingRequests"]
        running = self.client.stream(request(prompt="a b", max_tokens=LONG), timeout=60)
        next(running)
        order = []

        def read(priority):
            list(self.stream(priority, prompt="a b", max_tokens=3))
            order.append(priority)
        threads = []
        for waiting, priority in enumerate(("low", "normal", "high"), start=1):
            threads.append(threading.Thread(target=read, args=(priority,)))
            threads[-1].start()
            wait_until(lambda: pending() == waiting, 10, "it waits")
        running.cancel()
        for thread in threads:
            thread.join(60)
        self.assertEqual(order, ["high", "normal", "low"])

    def test_another_priority_is_refused(self):
        self.assert_fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: self.stream("urgent", prompt="a"), "x-priority", "urgent")


class HiddenVariablesTest(unittest.TestCase):
    def test_variables_that_the_expression_matches_in_full_are_hidden_from_workers(self):
        server = Server(environment={"MY_SECRET": "1", "MY_SECRET_PLACE": "1"}.items(), arguments=("--set", "blacklist_env_vars=MY_SECRE.|OTHER"))
        self.addCleanup(server.close)
        for pid in server.worker_pids():
            variables = variables_of(pid)
            self.assertNotIn("MY_SECRET", variables)
            self.assertIn("MY_SECRET_PLACE", variables)
            self.assertEqual(variables["LOGLEVEL"], "INFO")
