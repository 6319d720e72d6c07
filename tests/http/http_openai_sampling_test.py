"""What steers the choice of tokens, and their log probabilities, over OpenAI's API."""
import json
import unittest

from openai_case import OpenAiServerTestCase, events_of
from penstock_server import FAKE_WORKER, make_model


@unittest.skipUnless(FAKE_WORKER, "reads the prompt back from the fake worker's words")
class OpenAiSamplingServerTest(OpenAiServerTestCase):
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

    def test_those_of_the_prompt_alone_are_vllms_field(self):
        def entry(text, rank, logprob):
            return {"logprob": logprob, "rank": rank, "decoded_token": text}
        likeliest = {"1": entry("w1", 1, -1.0), "2": entry("w2", 2, -2.0)}
        expected = [None, {"100": entry("a", None, -0.25), **likeliest}, {"100": entry(" b", None, -0.25), **likeliest}]
        choice = self.complete(prompt="a b", max_tokens=1, prompt_logprobs=2).json["choices"][0]
        self.assertEqual((choice["prompt_logprobs"], choice["logprobs"], choice["text"]), (expected, None, "a "))
        both = self.complete(prompt="a b", max_tokens=1, prompt_logprobs=2, logprobs=1, echo=True).json["choices"][0]
        self.assertEqual(both["prompt_logprobs"], expected)
        self.assertEqual([top and len(top) for top in both["logprobs"]["top_logprobs"]], [None, 2, 2, 2])
        answer = self.chat("a", max_tokens=1, prompt_logprobs=0, n=2).json
        self.assertEqual([set(entry) for entry in answer["prompt_logprobs"][1:]], [{"100"}] * (len(answer["prompt_logprobs"]) - 1))
        self.assertNotIn("prompt_logprobs", answer["choices"][0])
        self.assertNotIn("prompt_logprobs", self.chat("a", max_tokens=1).json)
        self.assert_refused(self.complete(prompt_logprobs=1, stream=True), 400, "prompt_logprobs", "invalid_value")

    def test_everything_that_steers_the_choice_of_tokens_reaches_the_worker(self):
        asked = {"min_tokens": 2, "min_p": 0.25, "repetition_penalty": 1.5, "presence_penalty": -0.5, "frequency_penalty": 0.75, "logit_bias": {"7": -100},
                 "stop_token_ids": [3, 4]}
        said = "min_tokens=2 min_p=0.25 repetition=1.5 presence=-0.5 frequency=0.75 bias[7]=-100 stop=3 stop=4 salt=127.0.0.1 mine "
        text = self.complete(prompt="[sampling]", max_tokens=9, cache_salt="mine", **asked).json["choices"][0]["text"]
        self.assertEqual(text.replace("\n", " "), said)
        text = self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "[sampling]", "max_tokens": 9, **asked})).text
        self.assertEqual(text.replace("\n", " "), said.replace("mine", ""))


@unittest.skipUnless(FAKE_WORKER, "reads the sampling back from the fake worker's words")
class OpenAiDefaultsServerTest(OpenAiServerTestCase):
    """generation_config.json of a model's folder."""

    store = (("placeholder", None),)  # models can be registered

    def registered(self, name, generation_config, config=""):
        folder = make_model(self.server.folder / "store" / name, config)
        (folder / "generation_config.json").write_text(json.dumps(generation_config))
        return self.admin("POST", f"/models?url={name}&initial_workers=1&synchronous=true")

    def said(self, model, **body):
        text = self.complete(model=model, prompt="[sampling]", max_tokens=9, **body).json["choices"][0]["text"]
        return [word for word in text.split() if not word.startswith(("salt", "min_tokens", "presence", "frequency"))][:5]

    def test_a_request_that_does_not_say_takes_what_the_model_says(self):
        makers = {"temperature": 0.5, "top_k": 7, "top_p": 0.25, "min_p": 0.125, "repetition_penalty": 1.5, "eos_token_id": 2}
        self.assertEqual(self.registered("warm", makers).status, 200)
        self.assertEqual(self.said("warm"), ["min_p=0.125", "repetition=1.5", "temperature=0.5", "top_k=7", "top_p=0.25"])
        self.assertEqual(self.said("warm", temperature=0.75, top_k=0, min_p=0)[:4], ["min_p=0", "repetition=1.5", "temperature=0.75", "top_p=0.25"])
        native = self.infer("POST", "/predictions/warm", json.dumps({"prompt": "[sampling]", "max_tokens": 6})).text
        self.assertNotIn("temperature", native)
        self.assertIn("min_p=0 ", native)

    def test_a_models_configuration_may_pass_over_it(self):
        self.assertEqual(self.registered("plain", {"temperature": 0.5}, "handler:\n  generation_config: none\n").status, 200)
        self.assertNotIn("temperature=0.5", self.said("plain"))

    def test_a_value_out_of_range_is_refused_when_the_model_is_registered(self):
        self.assert_error(self.registered("hot", {"temperature": 7}), 400, "BadRequestException", "generation_config.json: temperature", "from 0 to 2, found 7", "generation_config: none")
