"""The schemas that the tests check OpenAI's answers by: what is right passes, and everything that is wrong with it fails."""
import copy
import json
import unittest

import openai_schemas

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}}
TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ID = {"id": "x-1", "created": 1, "model": "tiny"}
MODEL = {"id": "tiny", "object": "model", "created": 1, "owned_by": "penstock"}
COMPLETION = {"index": 0, "text": "a", "finish_reason": "stop",
              "logprobs": {"tokens": ["<s>", "a"], "token_logprobs": [None, -1], "top_logprobs": [None, {"a": -1}], "text_offset": [0, 0]}}
EVENT = {"index": 0, "delta": {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **CALL}]}, "logprobs": None, "finish_reason": None}
RIGHT = {
    "models": {"object": "list", "data": [MODEL]},
    "model": MODEL,
    "completion": {**ID, "object": "text_completion", "choices": [COMPLETION], "usage": USAGE},
    "completion event": {**ID, "object": "text_completion", "choices": [{**COMPLETION, "finish_reason": None}], "usage": None},
    "chat": {**ID, "object": "chat.completion", "usage": USAGE,
             "choices": [{"index": 0, "message": {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]},
                          "logprobs": {"content": [{**TOKEN, "top_logprobs": [TOKEN]}], "refusal": None}, "finish_reason": "tool_calls"}]},
    "chat event": {**ID, "object": "chat.completion.chunk", "choices": [EVENT]},
    "tokenize": {"count": 1, "max_model_len": None, "tokens": [5], "token_strs": None},
    "detokenize": {"prompt": "a"},
    "error": {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": None}},
}
MAP_KEYS = {"a"}  # of top_logprobs


def objects(value, path=()):
    """All objects of a document, by where they are."""
    if isinstance(value, dict):
        yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from objects(part, (*path, key))


def at(document, path):
    for key in path:
        document = document[key]
    return document


class OpenAiSchemasTestCase(unittest.TestCase):
    def refused(self, kind, document):
        try:
            openai_schemas.check(kind, json.dumps(document))
        except AssertionError:
            return True
        return False

    def test_what_is_right_passes_under_its_own_name_only(self):
        for kind, document in RIGHT.items():
            for other in RIGHT:
                alike = {kind, other} == {"completion", "completion event"} and kind == "completion"  # an event may end its choice
                self.assertEqual(self.refused(other, document), not (kind == other or alike), f"{kind} as {other}")

    def test_a_field_more_or_of_another_type_fails_everywhere(self):
        for kind, document in RIGHT.items():
            for path in objects(document):
                if set(at(document, path)) == MAP_KEYS:
                    continue
                more = copy.deepcopy(document)
                at(more, path)["surprise"] = 1
                self.assertTrue(self.refused(kind, more), f"{kind}: a field more at {path}")
                for key in at(document, path):
                    other = copy.deepcopy(document)
                    at(other, path)[key] = True
                    self.assertTrue(self.refused(kind, other), f"{kind}: true for {key} at {path}")

    def test_a_required_field_that_is_missing_fails(self):
        answer = "id object created model choices"
        call = ("choices", 0, "message", "tool_calls", 0)
        token = ("choices", 0, "logprobs", "content", 0)
        for kind, path, keys in (
                ("models", (), "object data"), ("models", ("data", 0), "id object created owned_by"), ("model", (), "id object created owned_by"),
                ("completion", (), answer), ("completion", ("choices", 0), "index text logprobs finish_reason"),
                ("completion", ("usage",), "prompt_tokens completion_tokens total_tokens"),
                ("completion event", (), answer), ("completion event", ("choices", 0), "index text logprobs finish_reason"),
                ("chat", (), answer), ("chat", ("choices", 0), "index message logprobs finish_reason"), ("chat", ("choices", 0, "message"), "role content refusal"),
                ("chat", call, "id type function"), ("chat", (*call, "function"), "name arguments"), ("chat", token[:-2], "content refusal"),
                ("chat", token, "token logprob bytes top_logprobs"), ("chat", (*token, "top_logprobs", 0), "token logprob bytes"),
                ("chat event", (), answer), ("chat event", ("choices", 0), "index delta"), ("chat event", ("choices", 0, "delta", "tool_calls", 0), "index"),
                ("tokenize", (), "count tokens max_model_len token_strs"), ("detokenize", (), "prompt"),
                ("error", (), "error"), ("error", ("error",), "message type param code")):
            for key in keys.split():
                less = copy.deepcopy(RIGHT[kind])
                del at(less, path)[key]
                self.assertTrue(self.refused(kind, less), f"{kind}: without {key} at {path}")

    def test_values_are_those_of_the_description(self):
        for kind, path, value in (("completion", ("choices", 0, "finish_reason"), "tool_calls"), ("completion", ("choices", 0, "finish_reason"), None),
                                  ("chat", ("choices", 0, "finish_reason"), "abort"), ("chat", ("choices", 0, "finish_reason"), None),
                                  ("chat", ("choices", 0, "message", "role"), "user"), ("chat", ("usage",), None),
                                  ("completion", ("choices", 0, "logprobs", "token_logprobs"), [-1, None]), ("error", ("error", "code"), 400)):
            wrong = copy.deepcopy(RIGHT[kind])
            at(wrong, path[:-1])[path[-1]] = value
            self.assertTrue(self.refused(kind, wrong), f"{kind}: {value} at {path}")

    def test_json_is_read_strictly(self):
        for text in ('{"prompt": "a", "prompt": "b"}', '{"prompt": NaN}', '{"prompt": "a"'):
            with self.assertRaises((AssertionError, ValueError)):
                openai_schemas.check("detokenize", text)

    def test_events_follow_each_other_as_they_must(self):
        def event(choice, **more):
            return json.dumps({**ID, "object": "chat.completion.chunk", "choices": choice, **more})
        first, text, last, usage = (event([{"index": 0, "delta": {"role": "assistant", "content": ""}}]), event([{"index": 0, "delta": {"content": "a"}}]),
                                    event([{"index": 0, "delta": {}, "finish_reason": "stop"}]), event([], usage=USAGE))
        error = json.dumps(RIGHT["error"])

        def wrong(*events, whole=True):
            try:
                openai_schemas.check_stream("chat", "".join(f"data: {data}\n\n" for data in events).encode(), whole)
            except AssertionError:
                return True
            return False
        for right in ((first, text, last, "[DONE]"), (first, last, usage, "[DONE]"), (first, error), (error,)):
            self.assertFalse(wrong(*right), right)
        self.assertFalse(wrong(first, text, whole=False))
        for events in ((first, text), (first, last, text, "[DONE]"), (first, first, last, "[DONE]"), (first, last, "[DONE]", text), (error, "[DONE]"),
                       (first, text.replace("x-1", "x-2"), last, "[DONE]"), (first, event([]), "[DONE]"), (first, text.replace('"choices"', '"usage": 1, "choices"'), "[DONE]")):
            self.assertTrue(wrong(*events), events)
