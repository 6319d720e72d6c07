"""The routes that TorchServe's users call besides /predictions: SageMaker's, the legacy ones, paths behind a version, forms, descriptions."""
import json
import unittest
import urllib.parse

from http_case import HttpServerTest
from penstock_server import FAKE_WORKER

PROMPT = {"prompt": "a b", "max_tokens": 3, "temperature": 0}


def chunks(raw):
    """The chunks of a chunked body, as the wire has them."""
    found = []
    while True:
        size, raw = raw.split(b"\r\n", 1)
        length = int(size, 16)
        if length == 0:
            return found
        found.append(raw[:length])
        raw = raw[length + 2:]


class TextRoutesTest(HttpServerTest):
    def setUp(self):
        self.want = self.infer("POST", "/predictions/tiny", PROMPT).text

    def raw_chunks(self, target, body):
        data = json.dumps(body).encode()
        with self.connect() as raw:
            raw.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                        % (target.encode(), len(data), data))
            received = b""
            while piece := raw.recv(65536):
                received += piece
        head, rest = received.split(b"\r\n\r\n", 1)
        self.assertIn(b" 200 ", head.split(b"\r\n")[0], received)
        self.assertIn(b"chunked", head)
        return chunks(rest)

    def test_sagemaker_and_legacy_routes_answer_as_predictions(self):
        for method, target in (("POST", "/invocations"), ("POST", "/invocations?model_name=tiny"), ("POST", "/invocations?model_name=tiny&model_version=1.0"),
                               ("POST", "/models/tiny/invoke"), ("POST", "/tiny/predict"), ("PUT", "/tiny/predict"), ("POST", "/tiny/1.0/predict"),
                               ("PUT", "/predictions/tiny"), ("PATCH", "/predictions/tiny/1.0")):
            with self.subTest(target=target, method=method):
                reply = self.infer(method, target, PROMPT)
                self.assertEqual((reply.status, reply.text), (200, self.want))

    def test_an_unknown_model_is_404_on_all_of_them(self):
        for target in ("/invocations?model_name=no", "/models/no/invoke", "/no/predict", "/tiny/9/predict", "/explanations/no"):
            with self.subTest(target=target):
                self.assertEqual(self.infer("POST", target, PROMPT).status, 404)
        self.assert_error(self.infer("GET", "/invocations"), 405, "MethodNotAllowedException")

    def test_explanations_are_refused_with_the_reason(self):
        for target in ("/explanations/tiny", "/explanations/tiny/1.0"):
            self.assert_error(self.infer("POST", target, PROMPT), 501, "NotImplementedException", "no explanations")

    def test_forms_bring_the_prompt_in_a_field(self):
        body = json.dumps(PROMPT)
        for name in ("data", "prompt", "body"):
            form = f'--B\r\nContent-Disposition: form-data; name="{name}"; filename="p.json"\r\nContent-Type: application/json\r\n\r\n{body}\r\n--B--\r\n'
            reply = self.infer("POST", "/predictions/tiny", form, {"Content-Type": "multipart/form-data; boundary=B"}.items())
            self.assertEqual((reply.status, reply.text), (200, self.want))
        form = urllib.parse.urlencode({"data": body})
        urlencoded = {"Content-Type": "application/x-www-form-urlencoded"}.items()
        self.assertEqual(self.infer("POST", "/predictions/tiny", form, urlencoded).text, self.want)
        self.assertEqual(self.infer("POST", "/predictions/tiny", body, urlencoded).text, self.want, "as `curl -d` sends JSON")
        self.assertEqual(self.infer("POST", "/predictions/tiny", "x" * 10, urlencoded).status, 200, "as `curl -d` sends a bare prompt")

    def test_a_form_without_a_prompt_or_that_is_none_is_refused(self):
        kind = {"Content-Type": "multipart/form-data; boundary=B"}.items()
        self.assert_error(self.infer("POST", "/predictions/tiny", '--B\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--B--', kind), 400,
                          "BadRequestException", "'data'")
        self.assert_error(self.infer("POST", "/predictions/tiny", "text", kind), 400, "BadRequestException", "multipart/form-data")

    def test_max_new_tokens_asks_for_json_in_chunks_as_torchserves_llm_client_does(self):
        found = self.raw_chunks("/predictions/tiny", {"prompt": "a b", "max_new_tokens": 3})
        self.assertGreater(len(found), 1)
        self.assertEqual(len("".join(json.loads(chunk)["text"] for chunk in found).split()), 3)
        whole = self.infer("POST", "/predictions/tiny", {"prompt": "a b", "max_new_tokens": 3, "temperature": 0, "stream": False})
        self.assertEqual(whole.json, {"text": self.want})

    def test_completions_in_openais_form(self):
        reply = self.infer("POST", "/predictions/tiny/1.0/v1/completions", dict(PROMPT, model="tiny"))
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "application/json"), reply.text)
        self.assertEqual(reply.json["object"], "text_completion")
        self.assertEqual(reply.json["choices"][0]["text"], self.want)
        self.assertIn(reply.json["choices"][0]["finish_reason"], ("length", "stop"))
        self.assertEqual(reply.json["usage"]["total_tokens"], reply.json["usage"]["prompt_tokens"] + reply.json["usage"]["completion_tokens"])

    def test_completions_stream_as_events(self):
        body = dict(PROMPT, model="tiny", stream=True, stream_options={"include_usage": True})
        lines = b"".join(self.raw_chunks("/predictions/tiny/1.0/v1/completions", body)).decode().split("\n\n")
        self.assertEqual(lines[-2:], ["data: [DONE]", ""])
        events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
        self.assertEqual("".join(c["text"] for event in events for c in event["choices"]), self.want)
        self.assertEqual(len({event["id"] for event in events}), 1)
        self.assertTrue(events[-1]["usage"]["completion_tokens"])

    def test_other_paths_behind_a_text_model(self):
        self.assertIn("tiny", [model["id"] for model in self.infer("GET", "/predictions/tiny/1.0/v1/models").json["data"]])
        self.assert_error(self.infer("POST", "/predictions/tiny/1.0/v2/else", PROMPT), 404, "ResourceNotFoundException")

    def test_options_describe_the_models_api(self):
        for reply in (self.infer("OPTIONS", "/predictions/tiny"), self.infer("OPTIONS", "/predictions/tiny/1.0"), self.admin("OPTIONS", "/models/tiny")):
            self.assertEqual(reply.status, 200, reply.text)
            self.assertEqual(reply.json["openapi"], "3.0.1")
            self.assertIn("prompt", reply.json["paths"]["/predictions/tiny"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"])
            for path, operations in reply.json["paths"].items():
                for method in operations:
                    found = self.infer(method.upper(), path.replace("{url_path}", "v1/models"))
                    self.assertNotIn(found.json.get("type"), ("ResourceNotFoundException", "MethodNotAllowedException"), (method, path))
        self.assertEqual(self.infer("OPTIONS", "/predictions/no").status, 404)


class SeveralModelsTest(HttpServerTest):
    models = ("tiny", "other")

    def test_invocations_without_a_name_are_refused(self):
        self.assert_error(self.infer("POST", "/invocations", PROMPT), 400, "BadRequestException", "several models")
        self.assertEqual(self.infer("POST", "/invocations?model_name=other", PROMPT).status, 200)


@unittest.skipUnless(FAKE_WORKER, "played by the fake worker")
class BytesRoutesTest(HttpServerTest):
    config = "handler: torchscript\n"
    stages = 1

    def post(self, target, body=b"hi", rule=None, method="POST", **headers):
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        if rule:
            named["x-rule"] = rule
        return self.infer(method, target, body, named.items())

    def test_a_path_behind_the_version_reaches_the_handler(self):
        reply = self.post("/predictions/tiny/1.0/v1/chat%20s/completions", rule="headers")
        self.assertIn("url_path: v1/chat s/completions\n", reply.text)
        forged = self.infer("POST", "/predictions/tiny", b"hi", {"x-rule": "headers", "url_path": "forged"}.items())
        self.assertNotIn("forged", forged.text)

    def test_query_parameters_are_inputs_where_torchserve_forwards_them(self):
        for target in ("/invocations?a=1", "/models/tiny/invoke?a=1", "/tiny/predict?a=1", "/tiny/1.0/predict?a=1"):
            self.assertIn("a [] 1\n", self.post(target).text, target)
        self.assertNotIn("a [] 1", self.post("/predictions/tiny?a=1").text)

    def test_each_field_of_a_form_is_a_part(self):
        form = ('--B\r\nContent-Disposition: form-data; name="data"; filename="k.jpg"\r\nContent-Type: image/jpeg\r\n\r\n\x01\x02\r\n'
                '--B\r\nContent-Disposition: form-data; name="note"\r\n\r\ntext\r\n--B--\r\n').encode()
        reply = self.post("/predictions/tiny", form, Content_Type="multipart/form-data; boundary=B")
        self.assertEqual(reply.body, b"data [image/jpeg] \x01\x02\nnote [] text\n")
        reply = self.post("/predictions/tiny", b"x=1&y=a+b", Content_Type="application/x-www-form-urlencoded")
        self.assertEqual(reply.text, "x [] 1\ny [] a b\n")

    def test_explanations_need_a_python_handler(self):
        self.assertEqual(self.post("/explanations/tiny").status, 501)


@unittest.skipUnless(FAKE_WORKER, "played by the fake worker")
class SequenceHeadersTest(HttpServerTest):
    config = "handler: torchscript\nsequenceBatching: true\nmaxNumSequence: 1\nsequenceMaxIdleMSec: 60000\n"
    stages = 1

    def call_with(self, **headers):
        named = {"x-rule": "headers"}
        named.update({k: v for k, v in headers.items()})
        return self.infer("POST", "/predictions/tiny", b"hi", named.items())

    def test_a_sequence_is_begun_named_continued_and_ended(self):
        first = self.call_with()
        name = first.headers["ts_request_sequence_id"]
        self.assertTrue(name.startswith("ts-seq-"), name)
        self.assertIn(f"ts_request_sequence_id: {name}\n", first.text)
        self.assertIn("ts_request_sequence_start: true\n", first.text)
        second = self.call_with(ts_request_sequence_id=name)
        self.assertEqual(second.headers["ts_request_sequence_id"], name)
        self.assertNotIn("ts_request_sequence_start", second.text)
        self.assert_error(self.call_with(), 429, "ServiceUnavailableException", "maxNumSequence")
        ending = self.call_with(ts_request_sequence_id=name, ts_request_sequence_end="true")
        self.assertIn("ts_request_sequence_end: true\n", ending.text)
        another = self.call_with(ts_request_sequence_id="mine")
        self.assertEqual((another.status, another.headers["ts_request_sequence_id"]), (200, "mine"))
        self.assert_error(self.call_with(ts_request_sequence_id="x" * 257), 400, "BadRequestException", "sequence id")
