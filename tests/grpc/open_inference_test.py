"""KServe's Open Inference protocol over gRPC, under both package names, by its messages as KServe publishes them."""
import importlib
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

import grpc

from penstock_server import FAKE_WORKER, HERE, ServerTest, wait_until

Code = grpc.StatusCode
SOURCE = HERE.parents[1] / "proto"


def load_messages():
    folder = tempfile.mkdtemp(prefix="penstock-proto-")
    subprocess.run(["protoc", f"--python_out={folder}", f"-I{SOURCE}/openinference", "open_inference.proto"], check=True)
    sys.path.insert(0, folder)
    return importlib.import_module("open_inference_pb2")


oip = load_messages()
PACKAGES = ("org.pytorch.serve.grpc.openinference", "inference")


class OpenInferenceCalls:
    def call(self, method, message, package=PACKAGES[1]):
        response = getattr(oip, f"{method}Response")
        rpc = self.client.channel.unary_unary(f"/{package}.GRPCInferenceService/{method}", request_serializer=lambda m: m.SerializeToString(),
                                              response_deserializer=response.FromString)
        return rpc(message, timeout=20)

    def infer(self, *inputs, raw=(), **fields):
        return self.call("ModelInfer", oip.ModelInferRequest(model_name="tiny", inputs=inputs, raw_input_contents=raw, **fields))


def tensor(name, datatype, shape, **contents):
    return oip.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape,
                                                  contents=oip.InferTensorContents(**contents) if contents else None)


@unittest.skipUnless(FAKE_WORKER, "needs the model of the fake worker, which answers with twice its inputs")
class OpenInferenceTest(OpenInferenceCalls, ServerTest):
    config = "handler: torchscript\nbatchSize: 4\nmaxBatchDelay: 1\n"
    stages = 1

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="penstock-logs-")
        cls.addClassCleanup(folder.cleanup)
        cls.logs = pathlib.Path(folder.name)
        cls.environment = {"FAKE_WORKER_TENSORS": "1", "LOG_LOCATION": str(cls.logs)}
        super().setUpClass()

    def test_both_package_names_are_served(self):
        for package in PACKAGES:
            self.assertTrue(self.call("ServerLive", oip.ServerLiveRequest(), package).live)
            self.assertTrue(self.call("ServerReady", oip.ServerReadyRequest(), package).ready)
            self.assertTrue(self.call("ModelReady", oip.ModelReadyRequest(name="tiny"), package).ready)
            self.assertEqual(self.call("ServerMetadata", oip.ServerMetadataRequest(), package).name, "penstock")
            metadata = self.call("ModelMetadata", oip.ModelMetadataRequest(name="tiny"), package)
            self.assertEqual((metadata.name, list(metadata.versions), metadata.platform), ("tiny", ["1.0"], "pytorch_torchscript"))

    def test_typed_contents_come_back_typed(self):
        for datatype, field, values in (("FP32", "fp32_contents", [0.5, -1]), ("FP64", "fp64_contents", [0.1, 2]), ("INT32", "int_contents", [-3, 4]),
                                        ("INT8", "int_contents", [-3, 4]), ("INT64", "int64_contents", [-3, 4]), ("UINT8", "uint_contents", [3, 4])):
            answer = self.infer(tensor("x", datatype, [2, 1], **{field: values}), id="7")
            self.assertEqual((answer.model_name, answer.model_version, answer.id), ("tiny", "1.0", "7"))
            output = answer.outputs[0]
            self.assertEqual((output.name, output.datatype, list(output.shape)), ("x", datatype, [2, 1]))
            self.assertEqual(list(getattr(output.contents, field)), [2 * v for v in values], datatype)

    def test_raw_contents_come_back_raw(self):
        answer = self.infer(tensor("x", "FP32", [3]), raw=[struct.pack("<3f", 1, 2, 3)])
        self.assertEqual(struct.unpack("<3f", answer.raw_output_contents[0]), (2, 4, 6))
        self.assertFalse(answer.outputs[0].HasField("contents"))

    def test_only_the_outputs_that_are_asked_for_come(self):
        ask = oip.ModelInferRequest.InferRequestedOutputTensor
        inputs = [tensor("x", "INT64", [1], int64_contents=[1]), tensor("y", "INT64", [1], int64_contents=[2])]
        self.assertEqual([o.name for o in self.infer(*inputs).outputs], ["x", "y"])
        self.assertEqual([o.name for o in self.infer(*inputs, outputs=[ask(name="y")]).outputs], ["y"])
        self.assert_fails(Code.INVALID_ARGUMENT, lambda: self.infer(*inputs, outputs=[ask(name="z")]), "no output 'z'")

    def test_calls_are_in_the_access_log(self):
        with self.assertRaises(grpc.RpcError):
            self.call("ModelInfer", oip.ModelInferRequest(model_name="nobody"), PACKAGES[0])
        self.infer(tensor("x", "INT64", [1], int64_contents=[1]))
        self.call("ServerLive", oip.ServerLiveRequest())
        log = self.logs / "access_log.log"
        for package, method, code in ((PACKAGES[0], "ModelInfer", 5), (PACKAGES[1], "ModelInfer", 0), (PACKAGES[1], "ServerLive", 0)):
            line = f'"gRPC /{package}.GRPCInferenceService/{method} HTTP/2.0" {code} '
            wait_until(lambda: log.exists() and line in log.read_text(), what=line)

    def test_bad_requests_are_refused_by_name(self):
        x = "x"
        cases = [
            ("inputs: expected 1 to 256 tensors", lambda: self.infer()),
            ("datatype: expected BOOL", lambda: self.infer(tensor(x, "FLOAT", [1], fp32_contents=[1]))),
            ("has 8 bytes, found 4", lambda: self.infer(tensor(x, "FP32", [2], fp32_contents=[1]))),
            ("do not fit INT8", lambda: self.infer(tensor(x, "INT8", [1], int_contents=[300]))),
            ("do not fit FP16", lambda: self.infer(tensor(x, "FP16", [1], fp32_contents=[1]))),
            ("negative", lambda: self.infer(tensor(x, "FP32", [-1]))),
            ("one for each of the 1 inputs, found 2", lambda: self.infer(tensor(x, "FP32", [1]), raw=[b"1234", b"1234"])),
            ("contents beside raw_input_contents", lambda: self.infer(tensor(x, "FP32", [1], fp32_contents=[1]), raw=[b"1234"])),
            ("BYTES end within an item", lambda: self.infer(tensor(x, "BYTES", [1]), raw=[b"\xff\xff\xff\xffx"])),
            ("99 is not allowed", lambda: self.infer(tensor(x, "INT64", [1], int64_contents=[99]))),
        ]
        for word, call in cases:
            with self.subTest(word):
                self.assert_fails(Code.INVALID_ARGUMENT, call, word)
        self.assert_fails(Code.NOT_FOUND, lambda: self.call("ModelInfer", oip.ModelInferRequest(model_name="nobody")), "nobody")
        self.assert_fails(Code.NOT_FOUND, lambda: self.call("ModelReady", oip.ModelReadyRequest(name="nobody")), "nobody")


@unittest.skipUnless(FAKE_WORKER, "the fake worker repeats its prompt")
class OpenInferenceTextTest(OpenInferenceCalls, ServerTest):
    def test_a_generation_is_one_bytes_tensor_in_and_out(self):
        answer = self.infer(tensor("text", "BYTES", [1], bytes_contents=[b'{"prompt": "a b", "max_tokens": 3}']))
        self.assertEqual(list(answer.outputs[0].contents.bytes_contents), [b"a b a "])
        self.assert_fails(Code.INVALID_ARGUMENT, lambda: self.infer(tensor("text", "FP32", [1], fp32_contents=[1])), "one BYTES tensor")
