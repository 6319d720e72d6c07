"""TorchServe's routes, one by one, with each status that it documents for them: one table over a server that `torchserve --start` has started.

A row: what it shows, the port, method and target, the body, the status, and words of the answer. Of an error, the type stands before its words.
Where TorchServe's status is not ours, the row says so (docs/migrating_from_torchserve.md says why).
"""
import http.client
import json
import unittest

from penstock_server import FAKE_WORKER, make_model, wait_until
from torchserve_test import TorchServe

PROMPT = '{"prompt": "a b", "max_tokens": 3, "temperature": 0}'
TEXT = "a b a "
HEALTHY, READY = '"status": "Healthy"', '"ready": true'
NO_MODEL, NO_VERSION, BAD = "ModelNotFoundException", "ModelVersionNotFoundException", "BadRequestException"
NO_ROUTE, NO_METHOD, NOT_HERE = "ResourceNotFoundException", "MethodNotAllowedException", "NotImplementedException"
TENSORS = '{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a b"]}]}'
FORM = "--B\r\nContent-Disposition: form-data; name=\"data\"\r\n\r\n" + PROMPT + "\r\n--B--\r\n"
NEW = "/models?url=spare&model_name="

INFERENCE = (
    # The description and the health.
    ("description", "OPTIONS", "/", None, 200, '"openapi": "3.0.1"'),
    ("description by name", "GET", "/api-description", None, 200, '"/predictions/{model_name}"'),
    ("description by any method", "POST", "/api-description", None, 200, '"/predictions/{model_name}"'),
    *((f"ping by {method}", method, "/ping", None, 200, HEALTHY) for method in ("GET", "POST", "PUT", "OPTIONS", "DELETE")),
    ("what is not there", "GET", "/fake", None, 404, NO_ROUTE),
    ("nothing at all", "GET", "/", None, 405, NO_METHOD),
    # Predictions.
    *((f"prediction by {method}", method, "/predictions/tiny", PROMPT, 200, TEXT) for method in ("POST", "PUT", "PATCH", "GET")),
    ("prediction of a version", "POST", "/predictions/tiny/1.0", PROMPT, 200, TEXT),
    ("prediction of nobody", "POST", "/predictions/nobody", PROMPT, 404, NO_MODEL, "nobody"),
    ("prediction of no version", "POST", "/predictions/tiny/7.0", PROMPT, 404, NO_VERSION, "7.0"),
    ("prediction of no name", "POST", "/predictions", PROMPT, 404, NO_ROUTE),
    ("prediction of an empty name", "POST", "/predictions/", PROMPT, 404, NO_ROUTE),
    ("prediction without workers", "POST", "/predictions/idle", PROMPT, 503, "ServiceUnavailableException", "no worker"),
    ("prediction of nothing", "POST", "/predictions/tiny", None, 400, BAD, "prompt"),
    ("prediction of too much", "POST", "/predictions/tiny", "x" * 70000, 413, "RequestEntityTooLargeException"),
    ("prediction that fails", "POST", "/predictions/tiny", '{"prompt": "[error] x"}', 500, "InternalServerException", "told to fail"),
    ("API of a model", "OPTIONS", "/predictions/tiny", None, 200, '"/predictions/tiny"'),
    ("API of nobody", "OPTIONS", "/predictions/nobody", None, 404, NO_MODEL),
    ("path of vLLM's handler", "POST", "/predictions/tiny/1.0/v1/completions", '{"model": "tiny", "prompt": "a b", "max_tokens": 3}', 200, '"a b a "'),
    ("its conversations", "POST", "/predictions/tiny/1.0/v1/chat/completions", '{"model": "tiny"}', 400, None, "messages"),
    ("its models", "GET", "/predictions/tiny/1.0/v1/models", None, 200, '"id":"tiny"'),
    ("path of no handler", "POST", "/predictions/tiny/1.0/v9", PROMPT, 404, NO_ROUTE),
    ("part of a form", "POST", "/predictions/tiny", FORM, 200, TEXT),
    # Explanations: TorchServe's are of Python handlers, too.
    ("explanation of a text", "POST", "/explanations/tiny", PROMPT, 501, NOT_HERE, "no explanations"),
    ("explanation of a version", "POST", "/explanations/tiny/1.0", PROMPT, 501, NOT_HERE),
    ("explanation of nobody", "POST", "/explanations/nobody", PROMPT, 404, NO_MODEL),
    # SageMaker's and the oldest routes.
    ("the only model of the start", "POST", "/invocations", PROMPT, 200, TEXT),
    ("a model by query", "POST", "/invocations?model_name=tiny", PROMPT, 200, TEXT),
    ("nobody by query", "POST", "/invocations?model_name=nobody", PROMPT, 404, NO_MODEL),
    ("invocations by GET", "GET", "/invocations", None, 405, NO_METHOD),
    ("many models' route", "POST", "/models/tiny/invoke", PROMPT, 200, TEXT),
    ("many models' route of nobody", "POST", "/models/nobody/invoke", PROMPT, 404, NO_MODEL),
    ("oldest route", "POST", "/tiny/predict", PROMPT, 200, TEXT),
    ("oldest route of a version", "POST", "/tiny/1.0/predict", PROMPT, 200, TEXT),
    ("oldest route of nobody", "POST", "/nobody/predict", PROMPT, 404, NO_MODEL),
    ("oldest route of no version", "POST", "/tiny/7.0/predict", PROMPT, 404, NO_VERSION),
    # KServe's.
    ("version 1", "POST", "/v1/models/tiny:predict", '{"instances": ["a b"]}', 200, '"predictions"'),
    ("version 1 of nobody", "POST", "/v1/models/nobody:predict", '{"instances": ["a b"]}', 404, NO_MODEL),
    ("version 1 without instances", "POST", "/v1/models/tiny:predict", "{}", 400, BAD),
    ("version 1 explained", "POST", "/v1/models/tiny:explain", '{"instances": ["a b"]}', 501, NOT_HERE),
    ("version 2", "POST", "/v2/models/tiny/infer", TENSORS, 200, '"outputs"'),
    ("version 2 of a version: TorchServe 501", "POST", "/v2/models/tiny/versions/1.0/infer", TENSORS, 200, '"outputs"'),
    ("version 2 of nobody", "POST", "/v2/models/nobody/infer", TENSORS, 404, NO_MODEL),
    ("version 2 without tensors", "POST", "/v2/models/tiny/infer", "{}", 400, BAD),
    ("version 2 explained", "POST", "/v2/models/tiny/explain", TENSORS, 501, NOT_HERE),
    ("version 2 itself", "GET", "/v2", None, 200, '"version"'),
    ("alive", "GET", "/v2/health/live", None, 200, '"live": true'),
    ("ready", "GET", "/v2/health/ready", None, 200, READY),
    ("a model's metadata", "GET", "/v2/models/tiny", None, 200, '"platform"'),
    ("a model's readiness", "GET", "/v2/models/tiny/ready", None, 200, READY),
    ("a model without workers", "GET", "/v2/models/idle/ready", None, 503, None, '"ready": false'),
    # Workflows.
    ("workflow", "POST", "/wfpredict/some", PROMPT, 501, NOT_HERE, "workflows"),
    ("workflow by GET", "GET", "/wfpredict/some", None, 405, NO_METHOD),
    # What is the management port's.
    ("models on the other port", "GET", "/models", None, 404, NO_ROUTE),
)

MANAGEMENT = (
    ("description", "OPTIONS", "/", None, 200, '"openapi": "3.0.1"'),
    ("description by name", "GET", "/api-description", None, 200, '"/models/{model_name}"'),
    ("what is not there", "GET", "/fake", None, 404, NO_ROUTE),
    ("another method", "PATCH", "/models", None, 405, NO_METHOD, "please refer to API document"),
    # What a registration says.
    ("no workers", "POST", NEW + "one", None, 200, 'registered with 0 initial workers. Use scale workers API'),
    ("the same again", "POST", NEW + "one", None, 409, "ConflictStatusException", "already registered"),
    ("one worker", "POST", NEW + "two&initial_workers=1", None, 200, 'Model \\"two\\" Version: 1.0 registered with 1 initial workers'),
    ("at once", "POST", NEW + "three&initial_workers=1&synchronous=false", None, 202, "Processing worker updates..."),
    ("as JSON", "POST", "/models", '{"url": "spare", "model_name": "four", "batch_size": 3, "synchronous": false}', 200, "0 initial workers"),
    ("JSON that is none", "POST", "/models", '{"url": ', 400, BAD),
    ("no url", "POST", "/models?model_name=x", None, 400, BAD, "Parameter url is required."),
    ("an empty url", "POST", "/models?url=&model_name=x", None, 404, NO_MODEL, "empty url"),
    ("no file", "POST", "/models?url=absent.mar", None, 404, NO_MODEL, "Model not found at: absent.mar"),
    ("a climbing url", "POST", "/models?url=../spare", None, 404, NO_MODEL, "Relative path is not allowed in url: ../spare"),
    ("a climbing address", "POST", "/models?url=http://127.0.0.1:1/../a.mar", None, 404, NO_MODEL, "Relative path is not allowed in url: "),
    ("an address", "POST", "/models?url=http://127.0.0.1:1/a.mar", None, 404, NO_MODEL, "Given URL http://127.0.0.1:1/a.mar does not match any allowed URL(s)"),
    ("a runtime", "POST", NEW + "five&runtime=python3", None, 200, "0 initial workers"),
    ("a runtime of C++", "POST", NEW + "six&runtime=LSP", None, 200, "0 initial workers"),
    ("no runtime", "POST", NEW + "x&runtime=java", None, 400, BAD, "Invalid RuntimeType value"),
    ("a handler that cannot be run", "POST", NEW + "x&handler=invalidHandler&initial_workers=1", None, 500, "InternalServerException", "Error while creating workers"),
    ("what failed is gone", "GET", "/models/x", None, 404, NO_MODEL),
    ("a bucket's encryption", "POST", NEW + "x&s3_sse_kms=true", None, 501, NOT_HERE),
    # Lists.
    ("all", "GET", "/models", None, 200, '"modelUrl": "spare"'),
    ("a page", "GET", "/models?limit=1", None, 200, '"nextPageToken": "1"'),
    ("the page after it", "GET", "/models?limit=1&next_page_token=1", None, 200, '"nextPageToken": "2"'),
    ("a page of nothing", "GET", "/models?next_page_token=1000", None, 200, '"models": []'),
    # Descriptions.
    ("a model", "GET", "/models/tiny", None, 200, '"loadedAtStartup": true'),
    ("a version", "GET", "/models/tiny/1.0", None, 200, '"modelVersion": "1.0"'),
    ("all versions", "GET", "/models/tiny/all", None, 200, '"modelVersion": "1.0"'),
    ("customized", "GET", "/models/tiny?customized=true", None, 200, '"modelName": "tiny"'),
    ("no model", "GET", "/models/nobody", None, 404, NO_MODEL, "Model not found: nobody"),
    ("no version", "GET", "/models/tiny/7.0", None, 404, NO_VERSION, "Model version: 7.0"),
    ("API of a model", "OPTIONS", "/models/tiny", None, 200, '"/predictions/tiny"'),
    ("API of nobody", "OPTIONS", "/models/nobody", None, 404, NO_MODEL),
    ("readiness for KServe", "GET", "/v1/models/tiny", None, 200, READY),
    ("readiness of nobody", "GET", "/v1/models/nobody", None, 404, NO_MODEL),
    # Workers.
    ("scaled", "PUT", "/models/one?min_worker=1&synchronous=true", None, 200, "Workers scaled to 1 for model: one"),
    ("scaled by version", "PUT", "/models/one/1.0?min_worker=2&synchronous=true", None, 200, "Workers scaled to 2 for model: one, version: 1.0"),
    ("scaled by version in the query", "PUT", "/models/one?min_worker=2&synchronous=true&model_version=1.0", None, 200, "model: one, version: 1.0"),
    ("scaled at once", "PUT", "/models/one?min_worker=1", None, 202, "Processing worker updates..."),
    ("scaled down to none", "PUT", "/models/one?min_worker=0&max_worker=0&synchronous=true", None, 200, "Workers scaled to 0"),
    ("max below min", "PUT", "/models/one?min_worker=2&max_worker=1", None, 400, BAD, "max_worker cannot be less than min_worker"),
    ("fewer than none", "PUT", "/models/one?min_worker=-1", None, 500, "InternalServerException"),
    ("workers of nobody", "PUT", "/models/nobody", None, 404, NO_MODEL),
    ("workers of no version", "PUT", "/models/one/7.0", None, 404, NO_VERSION),
    # The default version.
    ("default", "PUT", "/models/one/1.0/set-default", None, 200, 'Default version successfully updated for model \\"one\\" to \\"1.0\\"'),
    ("default of no version", "PUT", "/models/one/7.0/set-default", None, 404, NO_VERSION),
    ("default of nobody", "PUT", "/models/nobody/1.0/set-default", None, 404, NO_MODEL),
    # The end of a model.
    ("another version", "POST", "/models?url=spare-2&model_name=one", None, 200, 'Model \\"one\\" Version: 2.0 registered'),
    ("the default while there are others", "DELETE", "/models/one/1.0", None, 403, "InvalidModelVersionException", "Cannot remove default version for model one"),
    ("a version", "DELETE", "/models/one/2.0", None, 200, 'Model \\"one\\" unregistered'),
    ("the last one", "DELETE", "/models/one", None, 200, 'Model \\"one\\" unregistered'),
    ("what has gone", "DELETE", "/models/one", None, 404, NO_MODEL),
    ("no version to end", "DELETE", "/models/two/7.0", None, 404, NO_VERSION),
    # Keys, while none are asked for, and workflows.
    ("keys", "GET", "/token?type=inference", None, 404, NO_ROUTE),
    *((f"workflows by {method}", method, target, None, 501, NOT_HERE, "workflows")
      for method, target in (("GET", "/workflows"), ("POST", "/workflows?url=x.war"), ("GET", "/workflows/x"), ("DELETE", "/workflows/x"))),
)

# The same server with enable_model_api left as it is.
CLOSED = (
    ("registering", "POST", "/models?url=spare", None, 405, NO_METHOD, "Model API disabled"),
    ("registering nothing", "POST", "/models", None, 405, NO_METHOD),
    ("unregistering", "DELETE", "/models/tiny", None, 405, NO_METHOD, "Model API disabled"),
    ("unregistering nobody", "DELETE", "/models/nobody", None, 405, NO_METHOD),
    ("scaling", "PUT", "/models/tiny?min_worker=1&synchronous=true", None, 200, "Workers scaled to 1"),
    ("the default", "PUT", "/models/tiny/1.0/set-default", None, 200, "Default version"),
    ("describing", "GET", "/models/tiny", None, 200, '"modelName": "tiny"'),
)

METRICS = (
    ("all", "GET", "/metrics", None, 200, "ts_inference_requests_total{"),
    ("some", "GET", "/metrics?name[]=ts_queue_latency_microseconds", None, 200, "ts_queue_latency_microseconds{"),
    ("what is not there", "GET", "/fake", None, 404, NO_ROUTE),
    ("another method", "POST", "/metrics", None, 405, NO_METHOD),
)


@unittest.skipUnless(FAKE_WORKER, "asks for what the fake worker answers")
class TorchServeCasesTest(unittest.TestCase):
    def start(self, *arguments):
        server = TorchServe(settings=("max_request_size=65536",))
        self.addCleanup(server.close)
        for name, version in (("spare", "1.0"), ("spare-2", "2.0")):
            folder = make_model(server.store / name, version=version)
            config = folder / "model-config.yaml"
            config.write_text(config.read_text().replace("minWorkers: 1\n", ""))
        server.start("--ts-config", str(server.config), "--models", "tiny", "--ncs", "--disable-token-auth", *arguments)
        server.wait_started()
        wait_until(lambda: server.call(server.http, "GET", "/v2/models/tiny/ready")[0] == 200, 60, "the model is loaded")
        return server

    def ask(self, address, method, target, body):
        connection = http.client.HTTPConnection(address, timeout=60)
        self.addCleanup(connection.close)
        form = {"Content-Type": "multipart/form-data; boundary=B"} if body and body.startswith("--B") else {}
        connection.request(method, target, body, form)
        response = connection.getresponse()
        return response, response.read().decode()

    def check(self, address, rows):
        for what, method, target, body, status, *words in rows:
            with self.subTest(what, target=f"{method} {target}"):
                response, text = self.ask(address, method, target, body)
                self.assertEqual(response.status, status, text)
                self.assertRegex(response.headers["x-request-id"], "^[0-9a-f-]{36}$")
                self.assertEqual((response.headers["Pragma"], response.headers["Cache-Control"], response.headers["Expires"]),
                                 ("no-cache", "no-cache; no-store, must-revalidate, private", "Thu, 01 Jan 1970 00:00:00 UTC"))
                if status >= 400:
                    kind, *words = words
                    self.assertEqual(response.headers["Connection"], "close")
                    if kind:
                        error = json.loads(text)
                        self.assertEqual((list(error), error["code"], error["type"]), (["code", "type", "message"], status, kind))
                        self.assertTrue(error["message"])
                for word in words:
                    self.assertIn(word, text)

    def test_each_route_has_torchserves_status(self):
        server = self.start("--enable-model-api")
        status, text = server.call(server.http_management, "POST", NEW + "idle")
        self.assertEqual(status, 200, text)
        self.check(server.http, INFERENCE)
        self.check(server.http_management, MANAGEMENT)
        self.check(server.metrics, METRICS)

    def test_the_model_api_is_closed_unless_it_is_opened(self):
        self.check(self.start().http_management, CLOSED)

    def test_one_address_serves_both(self):
        port = self.free_port()
        server = TorchServe()
        self.addCleanup(server.close)
        text = server.config.read_text().replace("inference_address=http://127.0.0.1:0", f"inference_address=http://127.0.0.1:{port}")
        server.config.write_text(text.replace("management_address=http://127.0.0.1:0", f"management_address=http://127.0.0.1:{port}"))
        server.start("--ts-config", str(server.config), "--models", "tiny", "--ncs", "--disable-token-auth")
        server.wait_started()
        wait_until(lambda: server.call(server.http, "GET", "/v2/models/tiny/ready")[0] == 200, 60, "the model is loaded")
        # What KServe's wrapper asks for.
        self.check(f"127.0.0.1:{port}", (
            ("a model", "GET", "/models/tiny?customized=false", None, 200, '"modelName": "tiny"'),
            ("a prediction", "POST", "/predictions/tiny", PROMPT, 200, TEXT),
            ("a model's route for predictions", "POST", "/models/tiny/invoke", PROMPT, 200, TEXT),
            ("readiness, beside OpenAI's description", "GET", "/v1/models/tiny", None, 200, '"name":"tiny","ready":true')))

    def free_port(self):
        import socket
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            return found.getsockname()[1]
