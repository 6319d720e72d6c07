"""What TorchServe's own clients do, written from what is known of them: its gRPC script, and its streaming client for large models over REST."""
import json
import threading
import unittest

import grpc

from penstock_server import HERE, Client, ManagementServerTest, wire
from python_handler_test import PythonModels
from torchserve_test import TorchServe

try:
    import requests
except ImportError:
    requests = None


class GrpcScriptTest(unittest.TestCase):
    """register, infer, infer_stream, unregister: the input is a file's bytes under the key `data`."""

    @classmethod
    def setUpClass(cls):
        cls.server = TorchServe()
        cls.addClassCleanup(cls.server.close)
        cls.server.start("--ts-config", str(cls.server.config), "--ncs", "--disable-token-auth", "--enable-model-api")
        cls.server.wait_started()
        cls.inference, cls.management = Client(cls.server.grpc), Client(cls.server.grpc_management)
        cls.addClassCleanup(cls.inference.close)
        cls.addClassCleanup(cls.management.close)
        cls.input = cls.server.folder / "prompt.txt"
        cls.input.write_text("Once upon a time")

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


@unittest.skipUnless(requests, "needs python3-requests")
class LlmStreamingClientTest(unittest.TestCase):
    """Posts prompt and max_new_tokens, and takes each chunk of the answer for one JSON object with `text`."""

    @classmethod
    def setUpClass(cls):
        cls.server = TorchServe()
        cls.addClassCleanup(cls.server.close)
        cls.server.start("--ts-config", str(cls.server.config), "--models", "tiny", "--ncs", "--disable-token-auth")
        cls.server.wait_started()

    def stream(self, prompt, tokens):
        found = []
        url = f"http://{self.server.http}/predictions/tiny"
        with requests.post(url, json={"prompt": prompt, "max_new_tokens": tokens}, stream=True, timeout=60) as response:
            self.assertEqual(response.status_code, 200)
            for chunk in response.iter_content(chunk_size=None):
                if chunk:
                    found.append(json.loads(chunk)["text"])
        return found

    def test_one_prompt(self):
        self.assertGreater(len(self.stream("Once upon a time", 12)), 1)

    def test_several_threads_with_several_requests_each(self):
        done = []

        def run(number):
            for _ in range(3):
                done.append("".join(self.stream(f"word{number}", 8)))

        threads = [threading.Thread(target=run, args=[number]) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(done), 15)
        self.assertTrue(all(done))

    def test_its_openai_mode(self):
        url = f"http://{self.server.http}/predictions/tiny/1.0/v1/completions"
        body = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 8, "stream": True}
        with requests.post(url, json=body, stream=True, timeout=60) as response:
            self.assertEqual(response.status_code, 200)
            events = [chunk.decode() for chunk in response.iter_content(chunk_size=None) if chunk]
        self.assertTrue(all(event.startswith("data: ") for event in events), events)
        text = [json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                for event in events for line in event.strip().split("\n\n") if line != "data: [DONE]"]
        self.assertTrue("".join(text))
        self.assertTrue(events[-1].endswith("data: [DONE]\n\n"))


@unittest.skipUnless(requests, "needs python3-requests")
class IntermediateResponsesTest(PythonModels, ManagementServerTest):
    """A Python handler that sends intermediate responses: each is a chunk of its own, and so is what the handler returns."""

    environment = {"PYTHONPATH": str(HERE / "fake_ts")}.items()

    def test_four_responses_are_four_chunks_and_four_messages(self):
        self.register("python")
        url = f"http://{self.server.http_address}/predictions/python"
        with requests.post(url, data="stream", headers={"Content-Type": "text/plain"}, stream=True, timeout=60) as response:
            self.assertEqual(response.headers["Transfer-Encoding"], "chunked")
            self.assertEqual([chunk.decode() for chunk in response.iter_content(chunk_size=None)], ["hello ", "hello ", "hello ", "world "])
        message = wire.PredictionsRequest(model_name="python", input={"data": b"stream"})
        self.assertEqual(self.client.stream_text(message), ["hello ", "hello ", "hello ", "world "])
