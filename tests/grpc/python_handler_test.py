"""Python handlers behind the front door: by a stand-in for TorchServe's package, and by the package itself where it is installed."""
import http.client
import importlib.util
import json
import os
import threading
import unittest

import grpc

from penstock_server import HERE, ManagementServerTest, wait_until, wire

Code = grpc.StatusCode

HANDLER = '''
import os, time
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    texts = [row.get("data") or row.get("body") for row in data]
    texts = [t.decode() if isinstance(t, (bytes, bytearray)) else t for t in texts]
    if texts[0] == "throw":
        raise ValueError("as asked")
    if texts[0] == "die":
        os.abort()
    if texts[0] == "few":
        return []
    if texts[0] == "garble":
        context.connection.sendall(b"\\xff" * 100)
    if texts[0] == "stranger":
        context.request_ids[0] = "nobody"
    if texts[0].startswith("status "):
        context.set_response_status(code=int(texts[0][7:]), idx=0)
    if texts[0] == "slow":
        time.sleep(1)
    if texts[0] == "stream":
        for word in ("hello ", "hello ", "hello "):
            send_intermediate_predict_response([word] * len(data), context.request_ids, "Intermediate Prediction success", 200, context)
        return ["world "] * len(data)
    if texts[0] == "status":
        context.set_response_status(code=404, idx=0)
        return ["there is no such thing"]
    if texts[0] == "where":
        return [{"folder": os.getcwd(), "threads": os.environ.get("OMP_NUM_THREADS"), **context.system_properties}]
    if texts[0] == "long header":
        context.set_response_header(0, "X-Long", "x" * 65530)
    if texts[0] == "header":
        context.set_response_content_type(0, "text/x-mine")
        return [context.get_request_header(0, "X-Mine")]
    return [{"text": t, "batch": len(data)} for t in texts]
'''


def inputs(data, model):
    return wire.PredictionsRequest(model_name=model, input={"data": data.encode()})


class PythonModels:
    models = ()
    store = (("python", None), ("broken", None))
    config = "handler: {anything: {of: the handler}, more: [1]}\nmine: 3\nbatchSize: 4\nmaxBatchDelay: 200\n"
    stages = 1

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for model, handler, source in (("python", "service.py:handle", HANDLER), ("broken", "service.py", "raise OSError('no weights')")):
            folder = cls.server.folder / "store" / model
            (folder / "config.json").unlink(missing_ok=True)
            (folder / "MAR-INF").mkdir()
            (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(
                {"runtime": "python", "model": {"modelName": model, "modelVersion": "1.0", "handler": handler, "configFile": "model-config.yaml"}}))
            (folder / "service.py").write_text(source)
            config = folder / "model-config.yaml"
            config.write_text(config.read_text().replace("minWorkers: 1\n", ""))


class PythonHandlerTest(PythonModels, ManagementServerTest):
    environment = {"PYTHONPATH": str(HERE / "fake_ts"), "OMP_NUM_THREADS": "3"}.items()
    arguments = ("--set", "service_envelope=json", "--set", "limit_max_image_pixels=false")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.manager.manage("RegisterModel", wire.RegisterModelRequest(url="python", initial_workers=1, synchronous=True))

    def predict(self, data):
        return self.client.predict(inputs(data, "python")).prediction

    def pid(self):
        return self.manager.manage("DescribeModel", wire.ModelRequest(model_name="python")).split('"pid": ')[1].split(",")[0]

    def http(self, body, headers=()):
        connection = http.client.HTTPConnection(self.server.http_address, timeout=30)
        self.addCleanup(connection.close)
        connection.request("POST", "/predictions/python", body, dict(headers))
        return connection.getresponse()

    def test_a_prediction_over_grpc_and_http(self):
        self.assertEqual(json.loads(self.predict("hi")), {"text": "hi", "batch": 1})
        reply = self.http("hi", {"Content-Type": "text/plain"}.items())
        self.assertEqual((reply.status, json.loads(reply.read())), (200, {"text": "hi", "batch": 1}))
        reply = self.http("header", {"Content-Type": "text/plain", "X-Mine": "yes"}.items())
        self.assertEqual((reply.headers["Content-Type"], reply.read()), ("text/x-mine", b"yes"))

    def test_intermediate_responses_are_streamed(self):
        self.assertEqual("".join(self.client.stream_text(inputs("stream", "python"))), "hello hello hello world ")
        reply = self.http("stream", {"Content-Type": "text/plain"}.items())
        self.assertEqual((reply.headers["Transfer-Encoding"], reply.read()), ("chunked", b"hello hello hello world "))

    def test_requests_that_come_together_are_one_batch(self):
        answers = []
        threads = [threading.Thread(target=lambda i=i: answers.append(json.loads(self.predict(f"t{i}")))) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(a["text"] for a in answers), ["t0", "t1", "t2", "t3"])
        self.assertGreater(max(a["batch"] for a in answers), 1)

    def test_what_the_handler_cannot_do_is_told(self):
        self.assert_fails(Code.UNAVAILABLE, lambda: self.predict("throw"), "Prediction failed")
        self.assert_fails(Code.UNAVAILABLE, lambda: self.predict("few"), "mismatched")
        self.assert_fails(Code.NOT_FOUND, lambda: self.predict("status"), "there is no such thing")
        reply = self.http("throw", {"Content-Type": "text/plain"}.items())
        self.assertEqual((reply.status, json.loads(reply.read())["message"]), (503, "Prediction failed"))

    def test_a_cancelled_request_costs_neither_the_worker_nor_the_others(self):
        call = self.client.stream(inputs("slow", "python"))
        call.cancel()
        self.assertEqual(json.loads(self.predict("next"))["text"], "next")

    def test_a_model_that_cannot_be_loaded_says_why(self):
        self.assert_fails(Code.INTERNAL, lambda: self.register("broken"), "no weights")

    def test_a_worker_that_talks_nonsense_is_started_again(self):
        for nonsense, word in (("garble", "a length of -1"), ("stranger", "answered 'nobody', which it does not run")):
            before = self.server.worker_pids()
            with self.assertRaises(grpc.RpcError) as raised:
                self.predict(nonsense)
            self.assertIn(word, raised.exception.details())
            wait_until(lambda: self.server.worker_pids() and not set(self.server.worker_pids()) & set(before), 20, "another process serves")
            self.assertEqual(json.loads(self.predict("again"))["text"], "again")

    def test_a_status_that_is_none_costs_its_own_request(self):
        for status in (-1, 0x7FFFFFFF, 100):
            self.assert_fails(Code.INTERNAL, lambda: self.predict(f"status {status}"), "expected one of HTTP")
            reply = self.http(f"status {status}", {"Content-Type": "text/plain"}.items())
            self.assertEqual((reply.status, json.loads(reply.read())["type"]), (500, "InternalServerException"))
        self.assertEqual(json.loads(self.predict("next"))["text"], "next")

    def test_it_runs_in_the_models_folder_as_the_server_is_told(self):
        said = json.loads(self.predict("where"))
        self.assertEqual(said["folder"], os.path.realpath(said["model_dir"]))
        self.assertTrue(os.path.isabs(said["model_dir"]))
        self.assertEqual((said["threads"], said["envelope"], said["limit_max_image_pixels"]), ("3", "json", False))

    def test_requests_with_one_id_are_answered_each(self):
        answers = []

        def ask(text):
            reply = self.http(text, {"Content-Type": "text/plain", "X-Request-Id": "twin"}.items())
            answers.append((reply.status, reply.headers["X-Request-Id"], json.loads(reply.read())))
        threads = [threading.Thread(target=ask, args=(text,)) for text in ("slow", "a", "b", "c")]
        for thread in threads:  # the others wait while the first runs, or are in its batch
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([(status, request) for status, request, _ in answers], [(200, "twin")] * 4)
        self.assertEqual(sorted(answer["text"] for _, _, answer in answers), ["a", "b", "c", "slow"])
        self.assertGreater(max(answer["batch"] for _, _, answer in answers), 1)

    def test_what_is_not_utf_8_costs_its_own_request(self):
        before = self.pid()
        form = b'--x\r\nContent-Disposition: form-data; name="\xe4"\r\n\r\nhi\r\n--x--\r\n'
        for headers, body in (({"X-Mine": b"\xe4"}, b"hi"), ({"Content-Type": b"text/\xe4"}, b"hi"),
                              ({"Content-Type": "multipart/form-data; boundary=x"}, form)):
            reply = self.http(body, headers.items())
            self.assertEqual(reply.status, 400, headers)
            self.assertIn("is not UTF-8", json.loads(reply.read())["message"])
        self.assertEqual(self.http(b"\xe4", {"Content-Type": "application/json"}.items()).status, 503, "bodies are the handler's business")
        self.assertEqual(self.pid(), before)

    def test_an_answer_that_http_cannot_carry_costs_its_own_request(self):
        reply = self.http("long header", {"Content-Type": "text/plain"}.items())
        self.assertEqual((reply.status, json.loads(reply.read())["type"]), (500, "InternalServerException"))
        reply = self.http("status 204", {"Content-Type": "text/plain"}.items())
        self.assertEqual((reply.status, reply.read()), (204, b""))
        self.assertEqual(json.loads(self.predict("next"))["text"], "next")

    def test_a_worker_that_dies_is_started_again(self):
        self.assert_fails(Code.UNAVAILABLE, lambda: self.predict("die"), "signal 6")
        wait_until(lambda: self.client.health("python") == 1, what="the restart")
        self.assertEqual(json.loads(self.predict("again"))["text"], "again")


class UndecodedTest(PythonModels, ManagementServerTest):
    environment = {"PYTHONPATH": str(HERE / "fake_ts")}.items()
    arguments = ("--set", "decode_input_request=false")

    def test_a_handler_may_get_bytes_as_they_came(self):
        (self.server.folder / "store" / "python" / "service.py").write_text("def handle(data, context):\n    return [str(data[0]['body'])]\n")
        self.register("python")
        connection = http.client.HTTPConnection(self.server.http_address, timeout=30)
        self.addCleanup(connection.close)
        connection.request("POST", "/predictions/python", "[1]", {"Content-Type": "application/json"})
        self.assertEqual(connection.getresponse().read(), b"b'[1]'")


class EnvelopeTest(PythonModels, ManagementServerTest):
    environment = {"PYTHONPATH": str(HERE / "fake_ts")}.items()
    arguments = ("--set", "service_envelope=json")

    def test_the_envelope_of_a_manifest_is_stronger_than_the_servers(self):
        manifest = self.server.folder / "store" / "python" / "MAR-INF" / "MANIFEST.json"
        for own, used in ((None, "json"), ("body", "body")):
            content = json.loads(manifest.read_text())
            content["model"]["envelope"] = own
            manifest.write_text(json.dumps(content))
            self.register("python")
            self.assertEqual(json.loads(self.client.predict(inputs("where", "python")).prediction)["envelope"], used)
            self.unregister("python")


class NoPackageTest(PythonModels, ManagementServerTest):
    environment = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}.items()

    @unittest.skipIf(importlib.util.find_spec("ts"), "the package ts is installed")
    def test_a_model_registers_and_its_worker_says_what_to_install(self):
        self.register("python", workers=0)
        self.addCleanup(lambda: self.unregister("python"))
        self.assert_fails(Code.INTERNAL, lambda: self.scale("python", 1), "pip install torchserve")


@unittest.skipUnless(importlib.util.find_spec("ts"), "TorchServe's package ts is not installed")
class RealPackageTest(PythonModels, ManagementServerTest):
    def test_the_real_worker_predicts_and_streams(self):
        self.register("python", workers=1)
        self.addCleanup(lambda: self.unregister("python"))
        self.assertEqual(json.loads(self.client.predict(inputs("hi", "python")).prediction)["text"], "hi")
        self.assertEqual("".join(self.client.stream_text(inputs("stream", "python"))), "hello hello hello world ")
