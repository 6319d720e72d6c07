"""What TorchServe's own gRPC script does, written from what is known of it."""
import unittest

import grpc

from penstock_server import Client, wire
from torchserve_test import TorchServe


class GrpcScriptTest(unittest.TestCase):
    """register, infer, infer_stream, unregister: the input is a file's bytes under the key `data`."""

    @classmethod
    def setUpClass(cls):
        cls.server = TorchServe()
        cls.server.start("--ts-config", str(cls.server.config), "--ncs", "--disable-token-auth", "--enable-model-api")
        cls.server.wait_started()
        cls.inference, cls.management = Client(cls.server.grpc), Client(cls.server.grpc_management)
        cls.input = cls.server.folder / "prompt.txt"
        cls.input.write_text("Once upon a time")

    @classmethod
    def tearDownClass(cls):
        cls.inference.close()
        cls.management.close()
        cls.server.close()

    def register(self, name, url):
        return self.management.manage("RegisterModel", wire.RegisterModelRequest(url=url, initial_workers=1, synchronous=True, model_name=name))

    def unregister(self, name):
        return self.management.manage("UnregisterModel", wire.ModelRequest(model_name=name))

    def prediction_request(self, name):
        return wire.PredictionsRequest(model_name=name, input={"data": self.input.read_bytes()})

    def test_the_scripts_four_commands(self):
        self.assertIn("registered", self.register("mine", "tiny"))
        whole = self.inference.predict(self.prediction_request("mine")).prediction.decode("utf-8")
        self.assertTrue(whole)
        pieces = [found.prediction.decode("utf-8") for found in self.inference.stream(self.prediction_request("mine"))]
        self.assertGreater(len(pieces), 1)
        self.assertIn("unregistered", self.unregister("mine"))
        with self.assertRaises(grpc.RpcError) as failed:
            self.inference.predict(self.prediction_request("mine"))
        self.assertEqual(failed.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_what_the_script_prints_when_a_command_fails(self):
        for command in (lambda: self.register("mine", "nowhere"), lambda: self.unregister("nobody")):
            with self.assertRaises(grpc.RpcError) as failed:
                command()
            self.assertTrue(failed.exception.details())
