"""Texts that must fit a schema, an expression or a list, over OpenAI's API."""
import json
import unittest

from openai_case import OpenAiServerTestCase, events_of, texts_of
from penstock_server import FAKE_WORKER


@unittest.skipUnless(FAKE_WORKER, "reads the prompt back from the fake worker's words")
class OpenAiConstraintsServerTest(OpenAiServerTestCase):
    def test_constraints_reach_the_worker_with_their_keys_in_order(self):
        schema = {"type": "object", "properties": {"b": {"type": "null"}, "a": {"type": "null"}}}
        said = "constraint=2:" + json.dumps(schema, separators=(",", ":")) + " "
        for asked in ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}, {"guided_json": schema},
                      {"structured_outputs": {"json": schema}}):
            text = self.complete(prompt="[sampling]", max_tokens=7, **asked).json["choices"][0]["text"]
            self.assertTrue(text.endswith(said), text)
        for form in ({}, {"stream": False}, {"stream": True}):  # which is taken out of the body
            text = self.infer("POST", "/predictions/tiny", json.dumps({"prompt": "[sampling]", "max_tokens": 7, "guided_json": schema, **form})).text
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
