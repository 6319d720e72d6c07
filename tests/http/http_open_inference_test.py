"""KServe's protocols over HTTP: versions 1 and 2."""
import json
import struct

from http_case import HttpServerTest


class HttpOpenInferenceTest(HttpServerTest):
    config = "handler: torchscript\n"
    stages = 1
    environment = {"FAKE_WORKER_TENSORS": "1"}.items()

    def test_version_2_describes_and_infers(self):
        self.assertEqual(self.infer("GET", "/v2").json["name"], "penstock")
        self.assertEqual(self.infer("GET", "/v2/health/live").json, {"live": True})
        self.assertEqual(self.infer("GET", "/v2/health/ready").json, {"ready": True})
        for path in ("/v2/models/tiny", "/v2/models/tiny/versions/1.0"):
            self.assertEqual(self.infer("GET", path).json["platform"], "pytorch_torchscript")
            self.assertEqual(self.infer("GET", path + "/ready").json, {"name": "tiny", "ready": True})
            body = {"id": "1", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2]}]}
            self.assertEqual(self.infer("POST", path + "/infer", body).json,
                             {"model_name": "tiny", "id": "1", "outputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [3, 4]}]})
        self.assert_error(self.infer("GET", "/v2/models/nobody"), 404, "ModelNotFoundException")
        self.assert_error(self.infer("POST", "/v2/models/tiny/infer", {"inputs": []}), 400, "BadRequestException", "1 to 256 tensors")

    def test_tensors_may_follow_the_json_as_bytes(self):
        head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}]}).encode()
        reply = self.infer("POST", "/v2/models/tiny/infer", head + struct.pack("<2f", 1, 2),
                           {"Inference-Header-Content-Length": str(len(head))}.items())
        self.assertEqual(struct.unpack("<2f", reply.body[int(reply.headers["Inference-Header-Content-Length"]):]), (2, 4))

    def test_version_1_predicts(self):
        self.assertEqual(self.infer("POST", "/v1/models/tiny:predict", {"instances": [[1, 2], [3, 4]]}).json, {"predictions": [[2, 4], [6, 8]]})
        self.assertEqual(self.infer("POST", "/predictions/tiny", b"[[1]]").json, [[2]])

    def test_explanations_are_for_python_handlers(self):
        for target in ("/v1/models/tiny:explain", "/v2/models/tiny/explain", "/v2/models/tiny/versions/1.0/explain"):
            self.assert_error(self.infer("POST", target, "x"), 501, "NotImplementedException", "explanations")


class HttpOpenInferenceTextTest(HttpServerTest):
    def test_a_generation_by_either_version(self):
        body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["{\"prompt\": \"a b\", \"max_tokens\": 3}"]}]}
        self.assertEqual(self.infer("POST", "/v2/models/tiny/infer", body).json["outputs"],
                         [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a b a "]}])
        self.assertEqual(self.infer("POST", "/v1/models/tiny:predict", {"instances": [{"prompt": "a b", "max_tokens": 3}]}).json,
                         {"predictions": ["a b a "]})
        for body in ({"instances": ["a", "b"]}, {"instances": "a"}, {}):
            self.assert_error(self.infer("POST", "/v1/models/tiny:predict", body), 400, "BadRequestException", "one prompt")
        self.assertEqual(self.infer("GET", "/v2/models/tiny").json["inputs"][0]["datatype"], "BYTES")
