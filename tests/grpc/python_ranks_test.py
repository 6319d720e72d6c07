"""Python handlers of several processes: who gets a request, who answers, and what each is told of the others, by a stand-in for TorchServe's package."""
import importlib.util
import json
import os
import pathlib
import signal
import sys
import unittest

import grpc

from penstock_server import HERE, ManagementServerTest, wait_until, wire

Code = grpc.StatusCode

HANDLER = '''
import os
from ts.handler_utils.utils import send_intermediate_predict_response

RANK = os.environ.get("RANK", "none")

def handle(data, context):
    texts = [row["data"].decode() for row in data]
    with open(os.path.join(context.system_properties["model_dir"], "seen-" + RANK), "a") as seen:
        seen.write("".join(t + "\\n" for t in texts))
    if texts[0] == "variables":
        return [dict(os.environ)]
    if texts[0] == "large":
        return ["x" * 1000000]
    if texts[0] == "stream":
        for word in ("one ", "two "):
            send_intermediate_predict_response([word], context.request_ids, "", 200, context)
    return [f"rank {RANK}: {t}" for t in texts]
'''

REDUCE = '''
import os, torch, torch.distributed
from datetime import timedelta

def handle(data, context):
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    sum = torch.tensor([float(data[0]["data"]) * (1 + torch.distributed.get_rank())])
    torch.distributed.all_reduce(sum)
    return [str(sum.item())]
'''

MODELS = {
    "tensor": ("parallelType: tp\nparallelLevel: 3\ndeviceType: cpu\n", HANDLER),
    "pipe": ("parallelType: pp\ndeviceType: cpu\ntorchrun: {nproc-per-node: 2, OMP_NUMBER_THREADS: 1, rdzv-backend: c10d}\n", HANDLER),
    "both": ("parallelType: pptp\nparallelLevel: 2\ndeviceType: gpu\n", HANDLER),
    "custom": ("parallelType: custom\nparallelLevel: 2\ndeviceType: gpu\n", HANDLER),
    "reduce": ("parallelType: tp\nparallelLevel: 2\ndeviceType: cpu\nstartupTimeout: 60\n", REDUCE),
    "far": ("parallelType: tp\nparallelLevel: 2\ntorchrun: {nnodes: 2}\n", HANDLER),
}


class RankedModels:
    models = ()
    store = tuple((name, None) for name in MODELS)
    environment = {"PYTHONPATH": str(HERE / "fake_ts"), "PENSTOCK_TEST_DEVICES": "4",
                   "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}.items()  # the workers' python3 is this one

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for model, (config, source) in MODELS.items():
            folder = cls.folder(model)
            (folder / "config.json").unlink(missing_ok=True)
            (folder / "MAR-INF").mkdir()
            (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(
                {"runtime": "python", "model": {"modelName": model, "modelVersion": "1.0", "handler": "service.py", "configFile": "model-config.yaml"}}))
            (folder / "service.py").write_text(source)
            (folder / "model-config.yaml").write_text(config)

    @classmethod
    def folder(cls, model):
        return cls.server.folder / "store" / model

    def start(self, model):
        for file in self.folder(model).glob("seen-*"):
            file.unlink()
        self.register(model, workers=1)
        self.addCleanup(lambda: self.unregister(model))

    def ask(self, model, text):
        return self.client.predict(wire.PredictionsRequest(model_name=model, input={"data": text.encode()})).prediction.decode()

    def seen(self, model):
        """What each rank got, by rank."""
        return {file.name.removeprefix("seen-"): file.read_text().split() for file in self.folder(model).glob("seen-*")}


class PythonRanksTest(RankedModels, ManagementServerTest):
    def test_tp_every_rank_gets_every_request_and_the_first_answers(self):
        self.start("tensor")
        self.assertEqual([self.ask("tensor", text) for text in ("a", "b")], ["rank 0: a", "rank 0: b"])
        stream = self.client.stream_text(wire.PredictionsRequest(model_name="tensor", input={"data": b"stream"}))
        self.assertEqual("".join(stream), "one two rank 0: stream")
        # The others may still be at it when the first has answered.
        all_of_it = {rank: ["a", "b", "stream"] for rank in "012"}
        wait_until(lambda: self.seen("tensor") == all_of_it, what=f"every rank has seen every request, not {self.seen('tensor')}")

    def test_pp_the_first_rank_alone_gets_requests(self):
        self.start("pipe")
        self.assertEqual(self.ask("pipe", "a"), "rank 0: a")
        self.assertEqual(len(self.server.ranks()), 2)
        self.assertEqual(self.seen("pipe"), {"0": ["a"]})

    def test_each_rank_is_told_what_torchrun_tells(self):
        self.start("pipe")
        told = sorted((variables_of(pid) for pid in self.server.worker_pids()), key=lambda variables: variables["RANK"])
        self.assertEqual([v["RANK"] for v in told], ["0", "1"])
        for rank, variables in enumerate(told):
            expected = {"LOCAL_RANK": str(rank), "ROLE_RANK": str(rank), "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                        "ROLE_WORLD_SIZE": "2", "ROLE_NAME": "default", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "LOGLEVEL": "INFO",
                        "TORCHELASTIC_USE_AGENT_STORE": "False", "CUDA_VISIBLE_DEVICES": ""}
            self.assertEqual({name: variables.get(name) for name in expected}, expected)
            for name in ("MASTER_PORT", "TORCHELASTIC_RUN_ID"):
                self.assertEqual(variables[name], told[0][name])

    def test_pptp_goes_to_all_ranks_and_each_sees_the_groups_devices(self):
        self.start("both")
        self.assertIn(json.loads(self.ask("both", "variables"))["CUDA_VISIBLE_DEVICES"], ("0,1", "2,3"))
        wait_until(lambda: self.seen("both") == {"0": ["variables"], "1": ["variables"]}, what="both ranks have seen it")

    def test_custom_is_one_process_that_is_no_rank_and_sees_all_its_devices(self):
        self.start("custom")
        variables = json.loads(self.ask("custom", "variables"))
        self.assertEqual(len(variables["CUDA_VISIBLE_DEVICES"].split(",")), 2)
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"):
            self.assertNotIn(name, variables)
        self.assertEqual(self.seen("custom"), {"none": ["variables"]})

    def test_a_rank_that_dies_takes_the_group_with_it_and_all_start_again(self):
        self.start("tensor")
        before = self.server.ranks()
        os.kill(before[2], signal.SIGKILL)
        wait_until(lambda: not set(before.values()) & set(self.server.worker_pids()), what="all ranks are gone")
        wait_until(lambda: self.client.health("tensor") == 1, what="the restart")
        self.assertEqual(self.ask("tensor", "again"), "rank 0: again")
        self.assertIn("rank 2 of worker group 0 was killed by signal 9 (SIGKILL)", self.server.stderr)

    def test_a_python_group_on_several_machines_is_refused(self):
        self.register("far", workers=0)
        self.addCleanup(lambda: self.unregister("far"))
        self.assert_fails(Code.INTERNAL, lambda: self.scale("far", 1), "torchrun.nnodes 2", "on one machine")

    @unittest.skipUnless(importlib.util.find_spec("torch"), "Python's torch is not installed")
    def test_ranks_find_each_other_as_under_torchrun(self):
        self.start("reduce")
        self.assertEqual([self.ask("reduce", text) for text in ("1", "10")], ["3.0", "30.0"])


class TalkativeRanksTest(RankedModels, ManagementServerTest):
    environment = {**dict(RankedModels.environment), "FAKE_TS_ALL_ANSWER": "1"}.items()

    def test_answers_of_other_ranks_are_dropped_and_block_nobody(self):
        self.start("tensor")
        for _ in range(3):
            self.assertEqual(len(self.ask("tensor", "large")), 1000000)
        self.assertEqual(self.ask("tensor", "a"), "rank 0: a")

        def all_have_seen():
            self.ask("tensor", "more")  # what the others say is thrown away while the first is waited for
            return {rank: seen[:4] for rank, seen in self.seen("tensor").items()} == {rank: ["large"] * 3 + ["a"] for rank in "012"}
        wait_until(all_have_seen, what="every rank has seen every request")


def variables_of(pid):
    content = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(entry.split("=", 1) for entry in content.split("\0") if "=" in entry)
