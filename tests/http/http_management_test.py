"""The management API over HTTP: TorchServe's routes, parameters and codes."""
import unittest

from http_case import HttpServerTest
from penstock_server import FAKE_WORKER


@unittest.skipUnless(FAKE_WORKER, "a worker without a model loads faster; the rest of the path is the same")
class ModelRoutesTest(HttpServerTest):
    store = (("one", None), ("two-v1", "1.0"), ("two-v2", "2.0"))

    def status(self, reply, code=200):
        self.assertEqual(reply.status, code, reply.text)
        return reply.json["status"]

    def test_a_model_lives_from_register_to_unregister(self):
        said = self.status(self.admin("POST", "/models?url=one&model_name=m&initial_workers=1"))
        self.assertEqual(said, 'Model "m" Version: 1.0 registered with 1 initial workers')
        self.assertEqual(self.infer("POST", "/predictions/m", {"prompt": "a", "max_tokens": 2}).status, 200)
        self.assertEqual(self.status(self.admin("PUT", "/models/m?min_worker=2&synchronous=true")), "Workers scaled to 2 for model: m")
        self.assertEqual(len(self.admin("GET", "/models/m").json[0]["workers"]), 2)
        self.assertEqual(self.status(self.admin("PUT", "/models/m?min_worker=0&synchronous=true")), "Workers scaled to 0 for model: m")
        self.assert_error(self.infer("POST", "/predictions/m", "x"), 503, "ServiceUnavailableException", "no worker")
        self.assert_error(self.admin("POST", "/models?url=one&model_name=m"), 409, "ConflictStatusException", "already registered")
        self.assertEqual(self.status(self.admin("DELETE", "/models/m")), 'Model "m" unregistered')
        self.assert_error(self.infer("POST", "/predictions/m", "x"), 404, "ModelNotFoundException")

    def test_parameters_may_come_as_json(self):
        said = self.status(self.admin("POST", "/models", {"url": "one", "model_name": "j", "initial_workers": 1, "batch_size": 4}))
        self.assertIn("registered with 1 initial workers", said)
        self.assertEqual(self.admin("GET", "/models/j").json[0]["batchSize"], 4)
        self.status(self.admin("DELETE", "/models/j"))

    def test_parameters_may_come_as_a_form(self):
        said = self.status(self.admin("POST", "/models", "url=one&model_name=f&initial_workers=1&batch_size=5"))
        self.assertIn("registered with 1 initial workers", said)
        self.assertEqual(self.admin("GET", "/models/f").json[0]["batchSize"], 5)
        self.status(self.admin("DELETE", "/models/f/?synchronous=true"))

    def test_kserve_and_openapi_know_a_model(self):
        self.assertEqual(self.admin("GET", "/v1/models/tiny").json, {"name": "tiny", "ready": True})
        self.assertIn("/predictions/tiny", self.admin("OPTIONS", "/models/tiny").json["paths"])
        for method, target in (("GET", "/v1/models/nobody"), ("OPTIONS", "/models/nobody")):
            self.assert_error(self.admin(method, target), 404, "ModelNotFoundException", "nobody")

    def test_asynchronous_calls_answer_202(self):
        self.assertEqual(self.status(self.admin("POST", "/models?url=one&model_name=a&initial_workers=1&synchronous=false"), 202),
                         "Processing worker updates...")
        self.assertEqual(self.status(self.admin("PUT", "/models/a?min_worker=1"), 202), "Processing worker updates...")
        self.status(self.admin("DELETE", "/models/a"))

    def test_versions(self):
        for version in ("1", "2"):
            self.status(self.admin("POST", f"/models?url=two-v{version}&model_name=two"))
        self.assertEqual([m["modelVersion"] for m in self.admin("GET", "/models/two/all").json], ["1.0", "2.0"])
        self.assert_error(self.admin("DELETE", "/models/two/1.0"), 403, "InvalidModelVersionException", "default")
        self.status(self.admin("PUT", "/models/two/2.0/set-default"))
        self.assertEqual(self.admin("GET", "/models/two").json[0]["modelVersion"], "2.0")
        self.status(self.admin("DELETE", "/models/two/1.0"))
        self.status(self.admin("DELETE", "/models/two/2.0"))

    def test_the_list(self):
        self.assertEqual(self.admin("GET", "/models").json, {"models": [{"modelName": "tiny", "modelUrl": "tiny"}]})

    def test_refusals(self):
        cases = [
            ("POST", "/models", None, 400, "BadRequestException", "url is required"),
            ("POST", "/models?url=", None, 404, "ModelNotFoundException", "empty url"),
            ("POST", "/models?url=../x", None, 404, "ModelNotFoundException", "Relative path is not allowed in url"),
            ("POST", "/models?url=https://example.com/x.mar", None, 404, "ModelNotFoundException", "does not match any allowed URL"),
            ("POST", "/models?url=%2e%2e%2fx", None, 404, "ModelNotFoundException", "Relative path is not allowed in url"),
            ("POST", "/models?url=missing", None, 404, "ModelNotFoundException", "missing"),
            ("POST", "/models?url=one&runtime=ruby", None, 400, "BadRequestException", "RuntimeType"),
            ("POST", "/models", "one", 400, "BadRequestException", "a JSON object or a form"),
            ("POST", "/models", "url=%zz", 400, "BadRequestException", "a JSON object or a form"),
            ("POST", "/models", "[1", 400, "BadRequestException", "JSON"),
            ("POST", "/models", "[" * 20000, 400, "BadRequestException", "nested"),
            ("PUT", "/models/nobody", None, 404, "ModelNotFoundException", "nobody"),
            ("PUT", "/models/tiny/9", None, 404, "ModelVersionNotFoundException", "9"),
            ("PUT", "/models/tiny?min_worker=2&max_worker=1", None, 400, "BadRequestException", "max_worker"),
            ("PUT", "/models/tiny?min_worker=-1", None, 500, "InternalServerException", "min_worker"),
            ("PUT", "/models/tiny?max_worker=-1", None, 400, "BadRequestException", "max_worker"),
            ("PUT", "/models/tiny?min_worker=99999", None, 400, "BadRequestException", "min_worker"),
            ("PUT", "/models/tiny/9/set-default", None, 404, "ModelVersionNotFoundException", "9"),
            ("GET", "/models/nobody", None, 404, "ModelNotFoundException", "nobody"),
            ("DELETE", "/models/nobody", None, 404, "ModelNotFoundException", "nobody"),
            ("PATCH", "/models", None, 405, "MethodNotAllowedException", "not allowed"),
            ("GET", "/workflows", None, 501, "NotImplementedException", "workflows"),
            ("POST", "/predictions/tiny", None, 404, "ResourceNotFoundException", "not found"),
        ]
        for method, target, body, status, kind, word in cases:
            with self.subTest(method=method, target=target):
                self.assert_error(self.admin(method, target, body), status, kind, word)


class ModelApiTest(HttpServerTest):
    def test_models_cannot_be_registered_unless_that_was_allowed(self):
        self.assert_error(self.admin("POST", "/models?url=tiny"), 405, "MethodNotAllowedException", "Model API disabled")
        self.assert_error(self.admin("DELETE", "/models/tiny"), 405, "MethodNotAllowedException", "Model API disabled")
        self.assertEqual(self.admin("GET", "/models").status, 200)

    def test_the_inference_port_manages_nothing(self):
        for method, target in (("GET", "/models"), ("PUT", "/models/tiny"), ("DELETE", "/models/tiny"), ("POST", "/models")):
            self.assertEqual(self.infer(method, target).status, 404, (method, target))
