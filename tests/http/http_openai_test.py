"""OpenAI's API over HTTP, read as its official clients read it: models, completions, tokens, what is refused."""
import json
import time
import unittest

from openai_case import OpenAiServerTestCase, events_of, texts_of, usage_of
from penstock_server import FAKE_WORKER


@unittest.skipUnless(FAKE_WORKER, "reads the prompt back from the fake worker's words")
class OpenAiServerTest(OpenAiServerTestCase):
    def test_models_are_listed_and_described(self):
        reply = self.infer("GET", "/v1/models")
        self.assertEqual((reply.status, reply.json["object"]), (200, "list"))
        self.assertEqual([model["id"] for model in reply.json["data"]], ["bare", "tiny"])
        for model in reply.json["data"]:
            self.assertEqual((model["object"], model["owned_by"], model["root"]), ("model", "penstock", model["id"]))
            self.assertLess(abs(model["created"] - time.time()), 3600)
            self.assertEqual(self.infer("GET", "/v1/models/" + model["id"]).json, model)
        self.assertEqual(self.infer("GET", "/v1/models/tiny:1.0").json["id"], "tiny:1.0")

    def test_one_model_is_also_described_as_kserve_does(self):
        described = self.infer("GET", "/v1/models/tiny").json
        self.assertEqual((described["name"], described["ready"]), ("tiny", True))

    def test_an_unknown_model_is_not_found(self):
        for reply in (self.infer("GET", "/v1/models/huge"), self.complete(model="huge"), self.chat(model="huge"), self.complete(model="tiny:9")):
            self.assert_refused(reply, 404, "model", "model_not_found")

    def test_an_unknown_model_is_said_before_what_else_is_wrong(self):
        for body in ({"model": "huge"}, {"model": "huge", "inputs": [1]}, {"model": "huge", "prompt": 5, "temperature": -1}):
            for target in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
                self.assert_refused(self.infer("POST", target, body), 404, "model", "model_not_found")
        self.assert_refused(self.infer("POST", "/predictions/tiny/9/v1/completions", {"x": 1}), 404, "model", "model_not_found")
        for body in ("huge", '["model", "huge"]', '{"model": 1}', '{"prompt": "x"}'):
            self.assertEqual(self.infer("POST", "/v1/completions", body).status, 400)

    def test_a_completion_has_every_required_key(self):
        reply = self.complete(max_tokens=4)
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "application/json"))
        self.assertTrue(reply.headers["x-request-id"])
        answer = reply.json
        self.assertTrue(answer["id"].startswith("cmpl-"))
        self.assertEqual((answer["object"], answer["model"]), ("text_completion", "tiny"))
        self.assertIsInstance(answer["created"], int)
        self.assertEqual(answer["choices"], [{"index": 0, "text": "a b c a ", "logprobs": None, "finish_reason": "length"}])
        self.assertEqual(answer["usage"], usage_of(3, 4))

    def test_sixteen_tokens_are_the_default_of_a_completion_and_none_may_be_asked_for(self):
        self.assertEqual(self.complete().json["usage"]["completion_tokens"], 16)
        answer = self.complete(max_tokens=0, echo=True).json
        self.assertEqual((answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]), ("a b c", "length"))
        self.assertEqual(answer["usage"], usage_of(3, 0))

    def test_each_prompt_has_n_choices_and_usage_counts_prompts_once(self):
        answer = self.complete(prompt=["x y", "z"], n=2, max_tokens=2, echo=True).json
        self.assertEqual([(c["index"], c["text"]) for c in answer["choices"]], [(0, "x yx y "), (1, "x yx y "), (2, "zz z "), (3, "zz z ")])
        self.assertEqual(answer["usage"], usage_of(3, 8, cached=2))

    def test_a_streamed_completion_has_the_text_of_the_whole_one(self):
        whole = self.complete(prompt=["a b c", "d"], n=2, max_tokens=5, echo=True).json
        reply = self.complete(prompt=["a b c", "d"], n=2, max_tokens=5, echo=True, stream=True)
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "text/event-stream"))
        events = events_of(reply.body)
        self.assertEqual(len({event["id"] for event in events}), 1)
        for event in events:
            self.assertEqual((event["object"], event["model"]), ("text_completion", "tiny"))
            self.assertNotIn("usage", event)
            self.assertEqual(set(event["choices"][0]), {"index", "text", "logprobs", "finish_reason"})
        texts, reasons = texts_of(events, chat=False)
        self.assertEqual([texts[i] for i in range(4)], [choice["text"] for choice in whole["choices"]])
        self.assertEqual(set(reasons.values()), {"length"})

    def test_usage_comes_in_a_last_chunk_without_choices(self):
        # What `vllm bench serve` sends and reads.
        reply = self.complete(max_tokens=3, stream=True, repetition_penalty=1.0, logprobs=None, ignore_eos=True, stream_options={"include_usage": True})
        events = events_of(reply.body)
        self.assertEqual(events[-1]["choices"], [])
        self.assertEqual(events[-1]["usage"], usage_of(3, 3))
        self.assertEqual([event["usage"] for event in events[:-1]], [None] * 3)

    def test_bad_fields_are_named(self):
        cases = [
            (self.complete(temperature=-3), "temperature", "invalid_value"),
            (self.complete(prompt=""), "prompt", "invalid_value"),
            (self.complete(logprobs=6), "logprobs", "invalid_value"),
            (self.complete(logit_bias={"x": 1}), "logit_bias", "invalid_value"),
            (self.chat(top_logprobs=2), "top_logprobs", "invalid_value"),
            (self.complete(max_tokns=2), "max_tokns", "unknown_parameter"),
            (self.complete(stream_options={"include_usage": True}), "stream_options", "invalid_value"),
            (self.chat(response_format={"type": "structural_tag"}), "response_format", "unsupported_value"),
            (self.chat(response_format={"type": "json_schema"}), "response_format", "invalid_value"),
            (self.chat(guided_json={"type": "array", "uniqueItems": True}), "guided_json", "invalid_value"),
            (self.complete(guided_regex="(a"), "guided_regex", "invalid_value"),
            (self.complete(guided_regex="a", guided_choice=["a"]), "guided_choice", "invalid_value"),
            (self.chat(messages=[{"role": "alien", "content": "x"}]), "messages[0].role", "invalid_value"),
            (self.chat(messages=None), "messages", "missing_required_parameter"),
            (self.infer("POST", "/v1/completions", "{"), None, "invalid_json"),
            (self.infer("POST", "/v1/chat/completions", b'{"model": "\xff"}'), None, "invalid_json"),
            (self.infer("POST", "/v1/completions", "[" * 20000), None, "invalid_json"),
            (self.infer("POST", "/v1/completions", b'{"model": "tiny", "prompt": "x"}\0 and more'), None, "invalid_json"),
            (self.complete(prompt="x " * 5000), "prompt", "context_length_exceeded"),
            (self.chat("x " * 5000), "messages", "context_length_exceeded"),
        ]
        for reply, param, code in cases:
            self.assert_refused(reply, 400, param, code)

    def test_other_methods_are_refused_in_openais_words(self):
        for target in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
            self.assert_refused(self.infer("GET", target), 405, None, "method_not_allowed", "POST")

    def test_what_no_route_takes_below_v1_is_refused_in_openais_words(self):
        for method, target in (("GET", "/v1/nothing"), ("POST", "/v1/embeddings"), ("DELETE", "/v1/"), ("POST", "/v1/chat/completions/x")):
            self.assert_refused(self.infer(method, target), 404, None, "unknown_url", target)
        for method, target, allowed in (("POST", "/v1/models", "GET"), ("DELETE", "/v1/models/tiny", "GET"), ("PUT", "/v1/models/tiny:predict", "GET, POST")):
            reply = self.infer(method, target)
            self.assert_refused(reply, 405, None, "method_not_allowed", allowed)
            self.assertEqual(reply.headers["Allow"], allowed)
        self.assert_refused(self.infer("GET", "/v1/models/%zz"), 400, None, "invalid_value", "%")
        self.assertIn("ResourceNotFoundException", self.infer("GET", "/v2/nothing").text)

    def test_what_is_no_request_is_refused_in_openais_words(self):
        for target in ("/v1/completions", "/v1/models", "/tokenize", "/detokenize"):
            begin = f"POST {target} HTTP/1.1\r\n".encode()
            for rest, status, code, word in ((b"Host: x\r\nContent-Length: 99999999999\r\n\r\n", 413, "request_too_large", "max_request_size"),
                                             (b"\r\n", 400, "invalid_value", "Host is missing"),
                                             (b"Host: x\r\nHost: y\r\n\r\n", 400, "invalid_value", "Host is given twice"),
                                             (b"Host: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "invalid_value", "chunk")):
                self.assert_refused(self.send_raw(begin + rest), status, None, code, word)
        self.assert_refused(self.infer("GET", "/v1/models?x=%zz"), 400, None, "invalid_value", "query")
        self.assert_error(self.send_raw(b"POST /predictions/tiny HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"), 413, "RequestEntityTooLargeException")

    def test_a_stream_needs_http_1_1(self):
        body = json.dumps({"model": "tiny", "prompt": "x", "stream": True}).encode()
        reply = self.send_raw(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.assert_refused(reply, 400, "stream", "invalid_value", "HTTP/1.1")

    def test_texts_become_tokens_and_tokens_texts(self):
        tokens = [256, *"hé<|end|>".encode()]  # what is written in a text is text
        self.assertEqual(self.post("/tokenize", prompt="hé<|end|>").json,
                         {"count": len(tokens), "max_model_len": 4096, "tokens": tokens, "token_strs": None})
        self.assertEqual(self.post("/tokenize", prompt="hi", add_special_tokens=False).json["tokens"], [104, 105])
        chat = self.post("/tokenize", messages=[{"role": "user", "content": "<|end|>"}], add_generation_prompt=False).json["tokens"]
        self.assertEqual(chat, [256, *b" user: <|end|> ", 257])
        self.assertEqual(self.post("/detokenize", tokens=[256, 104, 195, 169, 257]).json, {"prompt": "<|begin|>hé<|end|>"})
        self.assert_refused(self.post("/tokenize"), 400, "prompt", "missing_required_parameter")
        self.assert_refused(self.post("/detokenize", tokens=[-1]), 400, "tokens", "invalid_value")

    def test_the_paths_of_torchserves_vllm_handler_lead_here(self):
        base = "/predictions/tiny/1.0/v1/"
        self.assertEqual(self.post(base + "completions", prompt="a b", max_tokens=2).json["choices"][0]["text"], "a b ")
        self.assertEqual(self.post(base + "chat/completions", messages=[{"role": "user", "content": "x"}], max_tokens=1).json["object"], "chat.completion")
        self.assertEqual(self.infer("GET", base + "models").json["object"], "list")
        self.assert_refused(self.post("/predictions/tiny/9/v1/completions", prompt="x"), 404, "model", "model_not_found")

    def test_a_prompt_of_token_ids_reaches_the_worker_as_it_is(self):
        answer = self.complete(prompt=[[5, 6, 7], [8]], max_tokens=3).json
        self.assertEqual([choice["text"] for choice in answer["choices"]], ["5 6 7 ", "8 8 8 "])
        self.assertEqual(answer["usage"]["prompt_tokens"], 4)

    def test_a_failure_before_the_first_event_has_its_status(self):
        for stream in (False, True):
            reply = self.complete(prompt="[error] x", stream=stream)
            self.assert_refused(reply, 500, None, "internal_error", "told to fail", kind="server_error")
            self.assertEqual(reply.headers["x-should-retry"], "false")


@unittest.skipUnless(FAKE_WORKER, "knows the tokens of the test's tokenizer")
class OpenAiSmallAnswersServerTest(OpenAiServerTestCase):
    arguments = ("--set", "max_response_size=1000")

    def test_tokens_of_more_text_than_an_answer_may_have_are_refused(self):
        self.assertEqual(self.post("/detokenize", tokens=[97] * 1000).json, {"prompt": "a" * 1000})
        self.assertEqual(self.post("/detokenize", tokens=[256] * 111).json, {"prompt": "<|begin|>" * 111})
        for tokens in ([97] * 1001, [256] * 112):
            self.assert_refused(self.post("/detokenize", tokens=tokens), 400, "tokens", "invalid_value", "at most 1000 (max_response_size)")

    def test_an_answer_that_grows_too_long_is_refused_unless_it_is_streamed(self):
        asked = {"prompt": "abc", "max_tokens": 400}
        self.assert_refused(self.complete(**asked), 400, None, None, "longer than 1000 bytes (max_response_size)", "stream")
        texts, _ = texts_of(events_of(self.complete(stream=True, **asked).body), chat=False)
        self.assertEqual(len(texts[0]), 1600)
