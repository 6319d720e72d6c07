"""Tools over OpenAI's API: calls that a model writes, calls that the client demands, and what goes back to the model."""
import json
import re
import unittest

from openai_case import events_of
from openai_tools_case import TOOLS, WEATHER, OpenAiToolsTestCase
from penstock_server import FAKE_WORKER


@unittest.skipUnless(FAKE_WORKER, "tells the fake worker what to say")
class OpenAiToolsServerTest(OpenAiToolsTestCase):
    def test_calls_that_the_model_writes_are_objects(self):
        message, reason = self.answer('[say] Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>\n'
                                      '<tool_call>{"name": "clock", "arguments": {}}</tool_call>')
        self.assertEqual((message["content"], reason), ("Let me see.", "tool_calls"))
        self.assertEqual(self.without_ids(message), [("weather", '{"city": "Köln"}'), ("clock", "{}")])
        message, reason = self.answer('[say] <tool_call>{"name": "clock", "arguments": {}}</tool_call>')
        self.assertEqual((message["content"], reason), (None, "tool_calls"))

    def test_a_streamed_call_comes_in_pieces_the_first_of_which_names_it(self):
        events = events_of(self.chat('[say] <tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>', tools=TOOLS, stream=True).body)
        deltas = [event["choices"][0]["delta"] for event in events]
        self.assertEqual((deltas[0]["role"], deltas[0]["content"], deltas[0]["tool_calls"][0]["function"]["name"]), ("assistant", None, "weather"))
        pieces = [delta["tool_calls"][0] for delta in deltas[:-1]]
        self.assertEqual("".join(piece["function"]["arguments"] for piece in pieces), '{"city": "Rome"}')
        self.assertGreater(len(pieces), 10)
        self.assertTrue(all(set(piece) == {"index", "function"} and set(piece["function"]) == {"arguments"} for piece in pieces[1:]))
        self.assertEqual(deltas[-1], {})

    def test_what_is_no_call_is_content(self):
        for text in ("plain words", "a <tool_call> b", '{"name": "clock", "arguments": {}}', '<tool_call>{"name": "clock"}</tool_call>'):
            self.assertEqual(self.answer("[say] " + text), ({"content": text}, "stop"))
        call = '<tool_call>{"name": "clock", "arguments": {}}</tool_call>'
        self.assertEqual(self.answer("[say] " + call, tool_choice="none"), ({"content": call}, "stop"))
        self.assertEqual(self.answer("[say] " + call, tools=None), ({"content": call}, "stop"))

    def test_one_call_where_several_are_not_wanted(self):
        call = '<tool_call>{"name": "clock", "arguments": {}}</tool_call>'
        message, reason = self.answer("[say] " + call + call, parallel_tool_calls=False)
        self.assertEqual((self.without_ids(message), reason), ([("clock", "{}")], "tool_calls"))

    def test_a_call_that_is_cut_off_ends_by_its_length(self):
        message, reason = self.answer('[say] <tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>', max_tokens=50)
        self.assertEqual(reason, "length")
        self.assertEqual(self.without_ids(message), [("weather", '{"city')])

    def check_call(self, name, arguments):
        arguments = json.loads(arguments)
        if name == "clock":
            self.assertEqual(arguments, {})
            return
        self.assertEqual(name, "weather")
        self.assertLessEqual(set(arguments), {"city", "days"})
        self.assertLessEqual(len(arguments["city"]), 8)
        self.assertIn(arguments.get("days", 1), range(1, 10))

    def test_a_demanded_call_always_fits_its_schema(self):
        names = set()
        for seed in range(6):
            message, reason = self.answer("[constrained]", tool_choice="required", parallel_tool_calls=seed % 2 == 0, seed=seed)
            calls = self.without_ids(message)
            self.assertEqual((message["content"], reason), (None, "tool_calls"))
            self.assertGreater(len(calls), 0)
            if seed % 2:
                self.assertEqual(len(calls), 1)
            for name, arguments in calls:
                self.check_call(name, arguments)
                names.add(name)
        self.assertEqual(names, {"weather", "clock"})

    def test_a_named_function_is_called(self):
        for name in ("weather", "clock"):
            message, reason = self.answer("[constrained]", tool_choice={"type": "function", "function": {"name": name}})
            self.assertEqual((message["content"], reason), (None, "tool_calls"))
            [(called, arguments)] = self.without_ids(message)
            self.assertEqual(called, name)
            self.check_call(called, arguments)

    def test_choices_have_calls_of_their_own(self):
        choices = self.chat("[constrained]", tools=TOOLS, tool_choice="required", n=3, seed=1).json["choices"]
        ids = [call["id"] for choice in choices for call in choice["message"]["tool_calls"]]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertGreaterEqual(len(ids), 3)

    def test_marks_of_calls_may_be_special_tokens(self):
        said = self.chat("[sampling]", tools=TOOLS, max_tokens=7).json["choices"][0]["message"]["content"]
        self.assertTrue(said.strip().endswith("special"), said)
        said = self.chat("[sampling]", max_tokens=6).json["choices"][0]["message"]["content"]
        self.assertNotIn("special", said)
        self.assertIn("special", self.complete(prompt="[sampling]", max_tokens=7, skip_special_tokens=False).json["choices"][0]["text"])

    def test_calls_and_their_results_go_back_to_the_model(self):
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}]
        count = self.chat(messages=messages, tools=TOOLS, max_tokens=1).json["usage"]["prompt_tokens"]
        said = self.chat(messages=messages, tools=TOOLS, max_tokens=count).json["choices"][0]["message"]["content"]
        self.assertEqual(said.strip(), "user: a | assistant: calls weather with Rome | tool: sunny |")

    def test_what_is_wrong_is_named(self):
        unfit = {"type": "function", "function": {"name": "f", "parameters": {"type": "array", "uniqueItems": True}}}
        for body, param in (({"tools": [{"type": "function"}]}, "tools[0].function"), ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
                            ({"tool_choice": "required"}, "tool_choice"), ({"tools": [WEATHER, unfit], "tool_choice": "required"}, "tools[1].function.parameters"),
                            ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
                            ({"tools": TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice")):
            self.assert_refused(self.chat(**body), 400, param, "invalid_value")


@unittest.skipUnless(FAKE_WORKER, "tells the fake worker what to say")
class OpenAiToolParserServerTest(OpenAiToolsTestCase):
    config = "handler:\n  tool_call_parser: mistral\n"
    id = r"^[0-9a-f]{9}$"

    def test_the_models_configuration_names_the_format(self):
        message, reason = self.answer('[say] [TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rome"}}]')
        self.assertEqual((message["content"], self.without_ids(message), reason), (None, [("weather", '{"city": "Rome"}')], "tool_calls"))
        self.assertEqual(self.answer("[say] <tool_call>{}")[0], {"content": "<tool_call>{}"})
        [(name, _)] = self.without_ids(self.answer("[constrained]", tool_choice="required", parallel_tool_calls=False)[0])
        self.assertTrue(re.match("weather|clock", name))
