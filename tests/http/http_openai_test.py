"""OpenAI's API over HTTP, read as its official clients read it: answers, events, errors, and clients that go."""
import json
import os
import signal
import time
import unittest

from http_case import HttpServerTest
from penstock_server import FAKE_WORKER, wait_until

TEMPLATE = ("{{ bos_token }}{% for m in messages %} {{ m.role }}: {{ m.content }} {{ eos_token }}{% endfor %}"
            "{% if tools %} tools: {{ tools | tojson }}{% endif %}{% if mood %} mood: {{ mood }}{% endif %}"
            "{% if messages[0].content == 'refuse' %}{{ raise_exception('the template refuses') }}{% endif %}"
            "{% if add_generation_prompt %} assistant:{% endif %}")


def byte_symbols():
    """GPT-2's alphabet: a printable character for each byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def write_tokenizer(folder, template=TEMPLATE):
    """A tokenizer of bytes, whose ids are the bytes, with <|begin|> 256 and <|end|> 257, and a chat template."""
    special = [{"id": 256 + i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i, content in enumerate(("<|begin|>", "<|end|>"))]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    begin = [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None, "pre_tokenizer": level, "decoder": level,
        "post_processor": {"type": "TemplateProcessing", "single": begin, "pair": begin,
                           "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [256], "tokens": ["<|begin|>"]}}},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "vocab": {symbol: byte for byte, symbol in enumerate(byte_symbols())}, "merges": []}}))
    config = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template} if template else config))


def usage_of(prompt, completion, cached=1):
    """The fake worker finds the first token of each prompt in its cache."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, "prompt_tokens_details": {"cached_tokens": cached}}


def events_of(body):
    """The JSON of each event, as OpenAI's Python client reads a stream; it must end with [DONE]."""
    events = []
    blocks = body.decode().split("\n\n")
    for i, block in enumerate(blocks):
        for line in block.split("\n"):
            if not line or line.startswith(":"):
                continue
            field, _, value = line.partition(":")
            assert field == "data", line
            value = value.removeprefix(" ")
            if value.startswith("[DONE]"):
                assert blocks[i + 1:] == [""], "nothing follows"
                return events
            events.append(json.loads(value))
    raise AssertionError(f"no [DONE]: {body[-200:]}")


def texts_of(events, chat):
    """By choice, the whole text; and all chunks of each choice end with one finish reason."""
    texts, reasons = {}, {}
    for event in events:
        for choice in event["choices"]:
            index = choice["index"]
            assert index not in reasons, "a chunk after the end of its choice"
            if choice["finish_reason"]:
                reasons[index] = choice["finish_reason"]
            text = choice["delta"].get("content", "") if chat else choice["text"]
            texts[index] = texts.get(index, "") + text
    assert set(texts) == set(reasons), "a choice without an end"
    return texts, reasons


@unittest.skipUnless(FAKE_WORKER, "reads the prompt back from the fake worker's words")
class OpenAiServerTest(HttpServerTest):
    models = ("tiny", "bare")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        write_tokenizer(cls.server.folder / "store" / "tiny")
        write_tokenizer(cls.server.folder / "store" / "bare", template=None)

    def post(self, target, **body):
        return self.infer("POST", target, {"model": "tiny", **body})

    def complete(self, **body):
        return self.post("/v1/completions", **{"prompt": "a b c", **body})

    def chat(self, content="hi there", **body):
        return self.post("/v1/chat/completions", **{"messages": [{"role": "user", "content": content}], **body})

    def assert_refused(self, reply, status, param, code, *words, kind="invalid_request_error"):
        self.assertEqual(reply.status, status, reply.text)
        self.assertEqual(set(reply.json), {"error"})
        error = reply.json["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual((error["type"], error["param"], error["code"]), (kind, param, code), error["message"])
        for word in words:
            self.assertIn(word, error["message"])

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

    def test_log_probabilities_of_a_completion_are_four_lists_streamed_or_not(self):
        expected = {"tokens": ["a ", "b "], "token_logprobs": [-0.5, -0.5], "top_logprobs": [{"a ": -0.5, "w1": -1.0, "w2": -2.0}, {"b ": -0.5, "w1": -1.0, "w2": -2.0}],
                    "text_offset": [0, 2]}
        self.assertEqual(self.complete(max_tokens=2, logprobs=2).json["choices"][0]["logprobs"], expected)
        streamed = {key: [] for key in expected}
        for event in events_of(self.complete(max_tokens=2, logprobs=2, stream=True).body):
            for key, values in event["choices"][0]["logprobs"].items():
                streamed[key] += values
        self.assertEqual(streamed, expected)

    def test_those_of_an_echoed_prompt_come_before_the_completions(self):
        prompt = {"tokens": ["<s>", "a", " b"], "token_logprobs": [None, -0.25, -0.25], "top_logprobs": [None, {"a": -0.25, "w1": -1.0}, {" b": -0.25, "w1": -1.0}],
                  "text_offset": [0, 0, 1]}
        both = {"tokens": prompt["tokens"] + ["a "], "token_logprobs": prompt["token_logprobs"] + [-0.5],
                "top_logprobs": prompt["top_logprobs"] + [{"a ": -0.5, "w1": -1.0}], "text_offset": prompt["text_offset"] + [3]}
        asked = {"prompt": "a b", "echo": True, "logprobs": 1}
        self.assertEqual(self.complete(max_tokens=1, **asked).json["choices"][0], {"index": 0, "text": "a ba ", "logprobs": both, "finish_reason": "length"})
        self.assertEqual(self.complete(max_tokens=0, **asked).json["choices"][0], {"index": 0, "text": "a b", "logprobs": prompt, "finish_reason": "length"})
        events = events_of(self.complete(max_tokens=1, stream=True, **asked).body)
        self.assertEqual(events[0]["choices"][0]["logprobs"], both)

    def test_log_probabilities_of_a_chat_are_a_list_of_tokens_streamed_or_not(self):
        token = {"token": "<|begin|> ", "logprob": -0.5, "bytes": list(b"<|begin|> "), "top_logprobs": [{"token": "w1", "logprob": -1.0, "bytes": [119, 49]}]}
        self.assertEqual(self.chat(max_tokens=1, logprobs=True, top_logprobs=1).json["choices"][0]["logprobs"], {"content": [token], "refusal": None})
        events = events_of(self.chat(max_tokens=1, logprobs=True, top_logprobs=1, stream=True).body)
        self.assertEqual([event["choices"][0]["logprobs"] for event in events], [{"content": [token], "refusal": None}, None])
        self.assertIsNone(self.chat(max_tokens=1).json["choices"][0]["logprobs"])

    def test_everything_that_steers_the_choice_of_tokens_reaches_the_worker(self):
        asked = {"min_tokens": 2, "min_p": 0.25, "repetition_penalty": 1.5, "presence_penalty": -0.5, "frequency_penalty": 0.75, "logit_bias": {"7": -100},
                 "stop_token_ids": [3, 4]}
        said = "min_tokens=2 min_p=0.25 repetition=1.5 presence=-0.5 frequency=0.75 bias[7]=-100 stop=3 stop=4 salt=127.0.0.1 mine "
        text = self.complete(prompt="[sampling]", max_tokens=9, cache_salt="mine", **asked).json["choices"][0]["text"]
        self.assertEqual(text.replace("\n", " "), said)
        text = self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "[sampling]", "max_tokens": 9, **asked})).text
        self.assertEqual(text.replace("\n", " "), said.replace("mine", ""))

    def test_constraints_reach_the_worker_with_their_keys_in_order(self):
        schema = {"type": "object", "properties": {"b": {"type": "null"}, "a": {"type": "null"}}}
        said = "constraint=2:" + json.dumps(schema, separators=(",", ":")) + " "
        for asked in ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}, {"guided_json": schema},
                      {"structured_outputs": {"json": schema}}):
            text = self.complete(prompt="[sampling]", max_tokens=7, **asked).json["choices"][0]["text"]
            self.assertTrue(text.endswith(said), text)
        text = self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "[sampling]", "max_tokens": 7, "guided_json": schema})).text
        self.assertTrue(text.endswith(said), text)
        text = self.complete(prompt="[sampling]", max_tokens=7, guided_choice=["a", "b"]).json["choices"][0]["text"]
        self.assertTrue(text.endswith('constraint=4:["a","b"] '), text)

    def test_every_choice_of_a_constrained_request_is_valid(self):
        schema = {"type": "object", "required": ["name", "age"], "additionalProperties": False,
                  "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 130}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}}}
        asked = {"prompt": "[constrained]", "response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}, "n": 8, "max_tokens": 2000}
        for stream in (False, True):
            if stream:
                texts, reasons = texts_of(events_of(self.complete(stream=True, seed=1, **asked).body), chat=False)
            else:
                choices = self.complete(seed=1, **asked).json["choices"]
                texts, reasons = {c["index"]: c["text"] for c in choices}, {c["index"]: c["finish_reason"] for c in choices}
            self.assertEqual(set(reasons.values()), {"stop"})
            for text in texts.values():
                person = json.loads(text)
                self.assertEqual(list(person)[:2], ["name", "age"])
                self.assertLessEqual(len(person["name"]), 6)
                self.assertTrue(0 <= person["age"] <= 130 and set(person.get("tags", [])) <= {"a", "b"}, text)
        cut = self.complete(**{**asked, "n": 1, "max_tokens": 5}).json["choices"][0]
        self.assertEqual(cut["finish_reason"], "length")
        answer = self.complete(prompt="[constrained]", guided_choice=["yes", "no"], max_tokens=50, seed=3).json["choices"][0]
        self.assertIn(answer["text"], ("yes", "no"))
        text = self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "[constrained]", "guided_regex": "[0-9]{3}-[a-c]+z", "seed": 1, "max_tokens": 2000})).text
        self.assertRegex(text, r"^[0-9]{3}-[a-c]+z$")

    def test_constraints_that_explode_are_refused(self):
        for asked in ({"guided_regex": "((((a{99}){99}){99}){99}){99}"}, {"guided_regex": "(" * 5000}, {"guided_regex": "a" * 100000},
                      {"guided_json": {"type": "string", "maxLength": 10**9}}, {"guided_json": {"type": "array", "items": {}, "minItems": 10**9}},
                      {"guided_json": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}},
                      {"guided_choice": ["x" * 1000] * 1000}):
            self.assert_refused(self.complete(**asked), 400, next(iter(asked)), "invalid_value")
        self.assertEqual(self.complete(max_tokens=1).status, 200)

    def test_a_chat_answer_has_every_required_key(self):
        answer = self.chat(max_completion_tokens=2).json
        self.assertTrue(answer["id"].startswith("chatcmpl-"))
        self.assertEqual(answer["object"], "chat.completion")
        self.assertEqual(answer["choices"], [{"index": 0, "message": {"role": "assistant", "content": "<|begin|> user: ", "refusal": None},
                                              "logprobs": None, "finish_reason": "length"}])
        self.assertEqual(answer["usage"], usage_of(6, 2))

    def said(self, **body):
        """The prompt that the worker got: the fake one says its words."""
        count = self.chat(max_tokens=1, **body).json["usage"]["prompt_tokens"]
        return self.chat(max_tokens=count, **body).json["choices"][0]["message"]["content"].strip()

    def test_the_prompt_is_what_the_models_template_makes_of_the_conversation(self):
        messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "you"}]}]
        self.assertEqual(self.said(messages=messages), "<|begin|> system: be brief <|end|> user: hi you <|end|> assistant:")
        tools = [{"type": "function", "function": {"name": "f"}}]
        self.assertEqual(self.said(tools=tools, chat_template_kwargs={"mood": "glad"}),
                         '<|begin|> user: hi there <|end|> tools: [{"type": "function", "function": {"name": "f"}}] mood: glad assistant:')
        self.assertNotIn("tools", self.said(tools=tools, tool_choice="none"))

    def test_special_tokens_in_a_message_are_broken(self):
        self.assertEqual(self.said(content="x<|end|>y"), "<|begin|> user: x<\ufdd0|end|>y <|end|> assistant:")

    def test_a_streamed_chat_begins_with_the_role_and_the_first_token_and_ends_with_an_empty_delta(self):
        events = events_of(self.chat(max_tokens=3, stream=True, stream_options={"include_usage": True}).body)
        deltas = [event["choices"][0]["delta"] for event in events[:-1]]
        self.assertEqual(deltas, [{"role": "assistant", "content": "<|begin|> "}, {"content": "user: "}, {"content": "hi "}, {}])
        self.assertEqual([event["choices"][0]["finish_reason"] for event in events[:-1]], [None, None, None, "length"])
        self.assertEqual({event["object"] for event in events}, {"chat.completion.chunk"})
        self.assertEqual(events[-1]["usage"]["completion_tokens"], 3)

    def test_choices_of_a_streamed_chat_each_name_their_role(self):
        events = events_of(self.chat(max_tokens=3, n=3, stream=True).body)
        texts, _ = texts_of(events, chat=True)
        self.assertEqual(texts, {i: "<|begin|> user: hi " for i in range(3)})
        self.assertEqual(sum("role" in event["choices"][0]["delta"] for event in events), 3)

    def test_what_the_template_raises_and_a_model_without_one_are_refused(self):
        self.assert_refused(self.chat("refuse"), 400, None, None, "the template refuses")
        self.assert_refused(self.chat(model="bare"), 400, None, None, "no chat template")

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
            (self.complete(prompt="x " * 5000), "prompt", "context_length_exceeded"),
            (self.chat("x " * 5000), "messages", "context_length_exceeded"),
        ]
        for reply, param, code in cases:
            self.assert_refused(reply, 400, param, code)

    def test_other_methods_are_refused_in_openais_words(self):
        for target in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
            self.assert_refused(self.infer("GET", target), 405, None, "method_not_allowed", "POST")

    def test_a_stream_needs_http_1_1(self):
        body = json.dumps({"model": "tiny", "prompt": "x", "stream": True}).encode()
        reply = self.send_raw(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.assert_refused(reply, 400, None, None, "HTTP/1.1")

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


@unittest.skipUnless(FAKE_WORKER, "needs a worker that fails on request, and its log")
class OpenAiTroubleServerTest(HttpServerTest):
    config = "jobQueueSize: 2\nhandler:\n  max_concurrent: 2\n"
    environment = {"FAKE_WORKER_STEP_MS": "10"}.items()

    def open_stream(self, prompt, **fields):
        body = json.dumps({"model": "tiny", "prompt": prompt, "max_tokens": 3000, "stream": True, **fields}).encode()
        raw = self.connect()
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return raw

    def complete(self, **body):
        return self.infer("POST", "/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 1, **body})

    def wait_free(self):
        wait_until(lambda: self.complete(n=2).status == 200, 15, "the worker is free again")

    def cancelled(self):
        return self.server.worker_log().count("cancelled after")

    def test_a_client_that_goes_stops_all_its_choices(self):
        for wait_for_an_event in (True, False):
            before = self.cancelled()
            raw = self.open_stream("a b" if wait_for_an_event else "[hang]", n=2)
            if wait_for_an_event:
                self.assertIn(b"text/event-stream", raw.recv(1000))
            else:
                time.sleep(0.3)
            raw.close()
            wait_until(lambda: self.cancelled() >= before + 2, 10, "the worker hears of both")
            self.wait_free()

    def test_a_choice_that_fails_stops_the_others(self):
        before = self.cancelled()
        reply = self.complete(prompt=["[hang]", "[error]"])
        self.assertEqual((reply.status, reply.json["error"]["code"]), (500, "internal_error"))
        wait_until(lambda: self.cancelled() >= before + 1, 10, "the hanging one is cancelled")
        self.wait_free()

    def test_an_error_after_the_first_event_is_the_last_event(self):
        raw = self.open_stream("a b")
        data = raw.recv(1000)
        os.kill(self.server.ranks()[1], signal.SIGKILL)
        while not data.endswith(b"0\r\n\r\n"):
            piece = raw.recv(65536)
            self.assertTrue(piece, data)
            data += piece
        raw.close()
        last = data.rsplit(b"data: ", 1)[1].split(b"\n\n")[0]
        error = json.loads(last)["error"]
        self.assertEqual((error["type"], error["param"], error["code"]), ("server_error", None, "service_unavailable"))
        self.assertIn("SIGKILL", error["message"])
        self.assertNotIn(b"[DONE]", data)
        self.wait_free()

    def test_a_full_queue_is_429_and_says_when_to_try_again(self):
        raws = [self.open_stream("[hang]", n=2)]
        time.sleep(0.3)
        raws.append(self.open_stream("[hang]", n=2))
        time.sleep(0.3)
        reply = self.complete()
        self.assertEqual((reply.status, reply.json["error"]["type"], reply.json["error"]["code"]), (429, "rate_limit_error", "rate_limit_exceeded"))
        self.assertEqual((reply.headers["retry-after"], reply.headers["retry-after-ms"]), ("1", "1000"))
        for raw in raws:
            raw.close()
        self.wait_free()

    def test_choices_that_do_not_all_fit_the_queue_are_all_taken_back(self):
        self.assertEqual(self.complete(prompt="[hang]", n=8).status, 429)
        self.wait_free()  # two that hang would hold both places
