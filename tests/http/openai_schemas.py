"""What an answer of OpenAI's API must be, as JSON Schema: of every answer that we give, and of each event of a stream.

They say in our words what OpenAI's published OpenAPI description (github.com/openai/openai-openapi) says of its schemas ListModelsResponse, Model,
CreateCompletionResponse, CreateChatCompletionResponse, CreateChatCompletionStreamResponse and ErrorResponse and of what these are made of: types, required
fields, values that may be. Stricter than there: an object has no other fields than those that are listed, and fields that we never send (audio, annotations,
moderation, ...) are not listed.

Extensions, the fields that the description does not have:
  of a model       root, parent, max_model_len (vLLM); name, ready (KServe's first protocol)
  of an answer     prompt_logprobs (vLLM): in each choice of a completion, beside the choices of a chat
  /tokenize, /detokenize    are vLLM's

Looser than there, where OpenAI's own service does not keep to its description:
  token_logprobs, top_logprobs    of a completion begin with null where a prompt is repeated: nothing predicts its first token
  usage                           of a completion's events is null but in the last one, as the description of stream_options says
  refusal                         stands in every message, which only some versions of the description require
"""
import json
import re
import unittest

try:
    import jsonschema
except ImportError:
    jsonschema = None

TEXT, INTEGER, NUMBER, BOOLEAN, NULL = ({"type": kind} for kind in ("string", "integer", "number", "boolean", "null"))


def constant(*values):
    return {"enum": list(values)}


def or_null(schema):
    return {"anyOf": [schema, NULL]}


def array(items, **more):
    return {"type": "array", "items": items, **more}


def closed(required, optional=None):
    """An object: the fields that it has, those that it may have, and no others."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required), "additionalProperties": False}


USAGE = closed(dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), INTEGER),
               {"prompt_tokens_details": closed({}, dict.fromkeys(("cached_tokens", "audio_tokens", "text_tokens", "image_tokens", "cache_write_tokens"), INTEGER)),
                "completion_tokens_details": closed({}, dict.fromkeys(("reasoning_tokens", "audio_tokens", "text_tokens", "accepted_prediction_tokens",
                                                                       "rejected_prediction_tokens"), INTEGER))})
TOKEN = {"token": TEXT, "logprob": NUMBER, "bytes": or_null(array(INTEGER))}
CHAT_LOGPROBS = or_null(closed(dict.fromkeys(("content", "refusal"), or_null(array(closed({**TOKEN, "top_logprobs": array(closed(TOKEN))}))))))
CHAT_REASON = constant("stop", "length", "tool_calls", "content_filter", "function_call")
CALL = closed({"id": TEXT, "type": constant("function"), "function": closed({"name": TEXT, "arguments": TEXT})})
CALL_PIECE = closed({"index": INTEGER}, {"id": TEXT, "type": constant("function"), "function": closed({}, {"name": TEXT, "arguments": TEXT})})
MESSAGE = closed({"role": constant("assistant"), "content": or_null(TEXT), "refusal": or_null(TEXT)}, {"tool_calls": or_null(array(CALL))})
DELTA = closed({}, {"role": constant("developer", "system", "user", "assistant", "tool"), "content": or_null(TEXT), "refusal": or_null(TEXT),
                    "tool_calls": array(CALL_PIECE)})
TOP = {"type": "object", "additionalProperties": NUMBER}
COMPLETION_LOGPROBS = or_null(closed({}, {"tokens": array(TEXT), "text_offset": array(INTEGER), "token_logprobs": array(NUMBER, prefixItems=[or_null(NUMBER)]),
                                          "top_logprobs": array(TOP, prefixItems=[or_null(TOP)])}))
COMPLETION_REASON = constant("stop", "length", "content_filter")
PROMPT_LOGPROBS = array(or_null({"type": "object", "additionalProperties": closed({"logprob": NUMBER, "rank": or_null(INTEGER), "decoded_token": TEXT})}))


def answer(kind, choice, optional):
    return closed({"id": TEXT, "object": constant(kind), "created": INTEGER, "model": TEXT, "choices": array(choice)},
                  {"system_fingerprint": TEXT, "service_tier": or_null(TEXT), **optional})


def completion_choice(reason):
    return {"index": INTEGER, "text": TEXT, "logprobs": COMPLETION_LOGPROBS, "finish_reason": reason}


MODEL = closed({"id": TEXT, "object": constant("model"), "created": INTEGER, "owned_by": TEXT},
               {"root": TEXT, "parent": or_null(TEXT), "max_model_len": or_null(INTEGER), "name": TEXT, "ready": BOOLEAN})
ERROR = closed({"error": closed({"message": TEXT, "type": TEXT, "param": or_null(TEXT), "code": or_null(TEXT)})})
SCHEMAS = {
    "models": closed({"object": constant("list"), "data": array(MODEL)}),
    "model": MODEL,
    "completion": answer("text_completion", closed(completion_choice(COMPLETION_REASON), {"prompt_logprobs": PROMPT_LOGPROBS}), {"usage": USAGE}),
    "completion event": answer("text_completion", closed(completion_choice(or_null(COMPLETION_REASON))), {"usage": or_null(USAGE)}),
    "chat": answer("chat.completion", closed({"index": INTEGER, "message": MESSAGE, "logprobs": CHAT_LOGPROBS, "finish_reason": CHAT_REASON}),
                   {"usage": USAGE, "prompt_logprobs": PROMPT_LOGPROBS}),
    "chat event": answer("chat.completion.chunk", closed({"index": INTEGER, "delta": DELTA}, {"logprobs": CHAT_LOGPROBS, "finish_reason": or_null(CHAT_REASON)}),
                         {"usage": or_null(USAGE)}),
    "tokenize": closed({"count": INTEGER, "max_model_len": or_null(INTEGER), "tokens": array(INTEGER), "token_strs": or_null(array(TEXT))}),
    "detokenize": closed({"prompt": TEXT}),
    "error": ERROR,
}
KINDS = {"models": "models", "completions": "completion", "chat/completions": "chat"}


def kind_of(target):
    """Which answer a path has where all goes well; "" where any other would be a surprise, and None where it is not OpenAI's or vLLM's path."""
    path = target.split("?")[0]
    if path in ("/tokenize", "/detokenize"):
        return path[1:]
    found = re.fullmatch(r"(/predictions/[^/]+/[^/]+)?/v1/(.*)", path)
    if not found or re.fullmatch(r"models/[^/]+:(predict|explain)", found[2]):  # KServe's first protocol has these
        return None
    if found[1]:
        return KINDS.get(found[2])  # other paths are the model's own
    return "model" if re.fullmatch("models/.+", found[2]) else KINDS.get(found[2], "")


def read_json(text):
    """Strictly: no key twice in an object, no NaN, no infinity."""
    def members(pairs):
        assert len(dict(pairs)) == len(pairs), f"a key twice: {[key for key, _ in pairs]}"
        return dict(pairs)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")
    return json.loads(text, object_pairs_hook=members, parse_constant=refuse)


def check(kind, text):
    """The JSON of an answer; AssertionError says what is wrong with it, and where."""
    if jsonschema is None:
        raise unittest.SkipTest("answers cannot be checked by their schemas: install python3-jsonschema")
    document = read_json(text)
    validator = jsonschema.Draft202012Validator(SCHEMAS[kind])
    wrong = [f"{error.json_path}: {error.message}" for error in sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))]
    assert not wrong, f"is no {kind} of OpenAI's API: {'; '.join(wrong)[:2000]}"
    return document


class StreamCheck:
    """Events of one answer, in their order."""

    def __init__(self, kind):
        self.kind = kind
        self.same = None
        self.reasons = {}
        self.roles = set()
        self.last = None  # after which nothing may come

    def event(self, data):
        assert self.last is None, f"an event after {self.last}: {data[:200]}"
        if data == "[DONE]":
            self.last = data
            return
        if "error" in read_json(data):
            check("error", data)
            self.last = "an error"
            return
        event = check(f"{self.kind} event", data)
        same = {key: event[key] for key in ("id", "object", "created", "model")}
        self.same = self.same or same
        assert same == self.same, f"{same} follows {self.same}"
        if not event["choices"]:
            assert event.get("usage"), f"an event of no choices without usage: {data}"
            return
        assert event.get("usage") is None, f"usage beside choices: {data}"
        for choice in event["choices"]:
            self.choice(choice)

    def choice(self, choice):
        index = choice["index"]
        assert index not in self.reasons, f"choice {index} goes on after its end"
        if choice.get("finish_reason") is not None:
            self.reasons[index] = choice["finish_reason"]
        if "role" in choice.get("delta", {}):
            assert index not in self.roles, f"choice {index} says its role twice"
            self.roles.add(index)

    def end(self):
        """Of a stream that was read to its end."""
        assert self.last is not None, "a stream without its last event, [DONE] or an error"


def check_stream(kind, body, whole=True):
    """`whole`: the client has waited for the end; otherwise the last event may be cut off."""
    stream = StreamCheck(kind)
    *events, rest = body.decode(errors="strict" if whole else "ignore").split("\n\n")
    for event in events:
        assert event.startswith("data: ") and "\n" not in event, f"is no event: {event[:200]}"
        stream.event(event.removeprefix("data: "))
    if whole:
        assert rest == "", f"is no event: {rest[:200]}"
        stream.end()


def check_reply(method, target, reply):
    """Of a path of OpenAI's API: what came must be what OpenAI's clients expect. `reply` has status, headers and body."""
    kind = kind_of(target)
    if kind is None or method == "HEAD":
        return
    if reply.status != 200:
        if not (target.startswith("/predictions/") and b'"InvalidKeyException"' in reply.body):  # a wrong key is refused there in TorchServe's words
            check("error", reply.body)
        return
    assert kind, f"{method} {target} is no path of OpenAI's API"
    if reply.headers["Content-Type"] == "text/event-stream":
        check_stream(kind, reply.body)
    else:
        assert reply.headers["Content-Type"] == "application/json", reply.headers["Content-Type"]
        check(kind, reply.body)
