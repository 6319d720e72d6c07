"""TorchServe's management contract over gRPC: the table of management_contract.py."""
import unittest

import grpc

from management_contract import CONTRACT, check_description, make_folders
from penstock_server import FAKE_WORKER, ManagementServerTest, make_model, wire

MESSAGES = {
    "register": ("RegisterModel", wire.RegisterModelRequest),
    "scale": ("ScaleWorker", wire.ScaleWorkerRequest),
    "describe": ("DescribeModel", wire.ModelRequest),
    "set_default": ("SetDefault", wire.ModelRequest),
    "unregister": ("UnregisterModel", wire.ModelRequest),
    "list": ("ListModels", wire.ListModelsRequest),
}


@unittest.skipUnless(FAKE_WORKER, "a worker without a model loads faster; the rest of the path is the same")
class ManagementContractTest(ManagementServerTest):
    models = ("tiny",)
    store = (("placeholder", None),)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        make_folders(cls.server.folder / "store", make_model)

    def call(self, call, parameters):
        """(code, answer or message); None when the message cannot hold the parameters."""
        method, message = MESSAGES[call]
        try:
            filled = message(**parameters)
        except (TypeError, ValueError):
            return None
        try:
            return 0, self.manage(method, filled)
        except grpc.RpcError as failure:
            return failure.code().value[0], failure.details()

    def test_each_call_has_torchserves_code(self):
        for what, call, parameters, _, code, words in CONTRACT:
            if code is None:
                continue
            with self.subTest(what, call=call, **{k: str(v) for k, v in parameters.items()}):
                answer = self.call(call, parameters)
                if answer is None:
                    continue
                self.assertEqual(answer[0], code, answer[1])
                self.assertIn(words, answer[1])

    def test_a_description_has_every_key(self):
        model = self.describe("tiny")[0]
        self.assertEqual(len(model["workers"]), 1)
        check_description(self, model)
