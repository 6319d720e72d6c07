"""What the tests of the official Python client share. It is the package `openai` of PyPI, in a virtual environment of its own beside the build.

PENSTOCK_OPENAI_VENV   a virtual environment that has it already, or where it is to be made
"""
import json
import pathlib
import sys

import openai_schemas
from http_case import HttpServerTest
from openai_case import TEMPLATE, write_tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from pypi import packages  # noqa: E402


def find_openai():
    """The module; SkipTest where it cannot be had."""
    return packages("openai-venv", "PENSTOCK_OPENAI_VENV", "openai")[0]


MODEL_EXTRA = {"root", "parent", "max_model_len", "name", "ready"}  # vLLM's and KServe's


def recording_client(bodies):
    """An HTTP client for the official one that keeps path and bytes of every answer."""
    client = next(kind for kind in find_openai().DefaultHttpxClient.__mro__ if kind.__name__ == "Client")
    httpx = sys.modules[client.__module__.split(".")[0]]  # httpx, or what later versions use in its place

    class Kept(httpx.SyncByteStream):
        def __init__(self, target, stream):
            self.stream = stream
            self.body = bytearray()
            bodies.append((target, self.body))

        def __iter__(self):
            for piece in self.stream:
                self.body += piece
                yield piece

        def close(self):
            self.stream.close()

    class Recording(httpx.HTTPTransport):
        def handle_request(self, request):
            response = super().handle_request(request)
            response.stream = Kept(request.url.path, response.stream)
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
        for target, body in self.bodies:
            if not body:  # the client did not wait for it
                continue
            kind = openai_schemas.kind_of(target)
            if body.startswith(b"data: "):
                openai_schemas.check_stream(kind, bytes(body), whole=False)  # clients go
                for event in bytes(body).split(b"\n\n")[:-1]:
                    if event != b"data: [DONE]":
                        self.check_types(json.loads(event.removeprefix(b"data: ")))
                continue
            document = json.loads(bytes(body))
            openai_schemas.check("error" if "error" in document else kind, bytes(body))
            self.check_types(document)

    def check_types(self, document):
        """Strictly, as the client's own types have it: none of another type, none that OpenAI's answers do not have."""
        openai = find_openai()
        kind = "error" if "error" in document else document["object"]
        types = {"chat.completion": openai.types.chat.ChatCompletion, "chat.completion.chunk": openai.types.chat.ChatCompletionChunk,
                 "text_completion": openai.types.Completion, "model": openai.types.Model, "list": openai.types.Model, "error": openai.types.ErrorObject}
        for part in document["data"] if kind == "list" else [document["error"] if kind == "error" else document]:
            for choice in part.get("choices", ()) if kind == "text_completion" else ():
                choice["finish_reason"] = choice["finish_reason"] or "stop"  # null in a stream, which not every version of the client's types has
            read = types[kind].model_validate_json(json.dumps(part), strict=True)
            self.assert_no_more(read, "", MODEL_EXTRA if kind in ("model", "list") else set())

    def assert_no_more(self, value, where, extra):
        for key in getattr(value, "model_extra", None) or {}:
            self.assertIn(key, extra, f"{where or type(value).__name__}: a field that OpenAI's answers do not have")
        for name, part in (value.__dict__ if hasattr(value, "model_fields_set") else {}).items():
            for item in part if isinstance(part, list) else [part]:
                self.assert_no_more(item, f"{where}.{name}", extra)
