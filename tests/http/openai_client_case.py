"""What the tests of the official Python client share. It is the package `openai` of PyPI, in a virtual environment of its own beside the build.

PENSTOCK_OPENAI_VENV   a virtual environment that has it already, or where it is to be made
"""
import json
import pathlib
import sys

from http_case import HttpServerTest
from openai_case import TEMPLATE, write_tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from pypi import packages  # noqa: E402


def find_openai():
    """The module; SkipTest where it cannot be had."""
    return packages("openai-venv", "PENSTOCK_OPENAI_VENV", "openai")[0]


# Of OpenAI's OpenAPI description, by the kind of an answer and the place in it. The client's types have defaults for those that may be null.
CHOICE = {"choices.logprobs": ("content", "refusal"), "choices.logprobs.content": ("token", "logprob", "bytes", "top_logprobs"),
          "choices.logprobs.content.top_logprobs": ("token", "logprob", "bytes"), "usage": ("prompt_tokens", "completion_tokens", "total_tokens")}
ANSWER = ("id", "object", "created", "model", "choices")
MODEL = ("id", "object", "created", "owned_by")
REQUIRED = {
    "chat.completion": {"": ANSWER, "choices": ("index", "message", "logprobs", "finish_reason"), "choices.message": ("role", "content", "refusal"),
                        "choices.message.tool_calls": ("id", "type", "function"), "choices.message.tool_calls.function": ("name", "arguments"), **CHOICE},
    "chat.completion.chunk": {"": ANSWER, "choices": ("index", "delta", "finish_reason"), "choices.delta.tool_calls": ("index",), **CHOICE},
    "text_completion": {"": ANSWER, "choices": ("index", "text", "logprobs", "finish_reason"), "usage": CHOICE["usage"]},
    "model": {"": MODEL},
    "list": {"": ("object", "data"), "data": MODEL},
    "error": {"": ("error",), "error": ("message", "type", "param", "code")},
}
MODEL_EXTRA = {"root", "parent", "max_model_len", "name", "ready"}  # vLLM's and KServe's


def places(document, path):
    """The objects at a place; lists stand for what is in them, and what is absent or null for nothing."""
    found = [document]
    for key in filter(None, path.split(".")):
        found = [value for item in found for value in [item.get(key)] if value is not None]
        found = [item for value in found for item in (value if isinstance(value, list) else [value])]
    return found


def recording_client(bodies):
    """An HTTP client for the official one that keeps the bytes of every answer."""
    client = next(kind for kind in find_openai().DefaultHttpxClient.__mro__ if kind.__name__ == "Client")
    httpx = sys.modules[client.__module__.split(".")[0]]  # httpx, or what later versions use in its place

    class Kept(httpx.SyncByteStream):
        def __init__(self, stream):
            self.stream = stream
            self.body = bytearray()
            bodies.append(self.body)

        def __iter__(self):
            for piece in self.stream:
                self.body += piece
                yield piece

        def close(self):
            self.stream.close()

    class Recording(httpx.HTTPTransport):
        def handle_request(self, request):
            response = super().handle_request(request)
            response.stream = Kept(response.stream)
            return response

    return httpx.Client(transport=Recording(), timeout=30, trust_env=False)


class OpenAiClientServerTestCase(HttpServerTest):
    """Base: a server and clients of it. Every answer is checked as it came over the wire, when its test has ended."""

    template = TEMPLATE

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        write_tokenizer(cls.server.folder / "store" / "tiny", cls.template)

    def setUp(self):
        super().setUp()
        self.bodies = []
        self.addCleanup(self.check_bodies)

    def official(self, **options):
        openai = find_openai()
        if "http_client" not in options:
            options["http_client"] = recording_client(self.bodies)
        client = openai.OpenAI(**{"base_url": f"http://{self.server.http_address}/v1", "api_key": "none", "max_retries": 0, "timeout": 30, **options})
        self.addCleanup(client.close)
        return client

    def check_bodies(self):
        for body in self.bodies:
            if not body:  # the client did not wait for it
                continue
            if not body.startswith(b"data: "):
                self.check(json.loads(bytes(body)))
                continue
            *events, _ = bytes(body).split(b"\n\n")  # the last one may be cut off: clients go
            for event in events:
                if event != b"data: [DONE]":
                    self.check(json.loads(event.removeprefix(b"data: ")))

    def check(self, document):
        """Strictly: every required field, none of another type, none that OpenAI's answers do not have."""
        openai = find_openai()
        kind = "error" if "error" in document else document["object"]
        for path, keys in REQUIRED[kind].items():
            for found in places(document, path):
                self.assertLessEqual(set(keys), set(found), f"{kind} {path}: a required field is missing")
        types = {"chat.completion": openai.types.chat.ChatCompletion, "chat.completion.chunk": openai.types.chat.ChatCompletionChunk,
                 "text_completion": openai.types.Completion, "model": openai.types.Model, "list": openai.types.Model, "error": openai.types.ErrorObject}
        for part in document["data"] if kind == "list" else [document["error"] if kind == "error" else document]:
            for choice in part.get("choices", ()) if kind == "text_completion" else ():
                choice["finish_reason"] = choice["finish_reason"] or "stop"  # in a stream OpenAI, too, sends null, which its description does not have
            read = types[kind].model_validate_json(json.dumps(part), strict=True)
            self.assert_no_more(read, "", MODEL_EXTRA if kind in ("model", "list") else set())

    def assert_no_more(self, value, where, extra):
        for key in getattr(value, "model_extra", None) or {}:
            self.assertIn(key, extra, f"{where or type(value).__name__}: a field that OpenAI's answers do not have")
        for name, part in (value.__dict__ if hasattr(value, "model_fields_set") else {}).items():
            for item in part if isinstance(part, list) else [part]:
                self.assert_no_more(item, f"{where}.{name}", extra)
