"""What the tests of the official Python client share. It is the package `openai` of PyPI, in a virtual environment of its own beside the build.

PENSTOCK_OPENAI_VENV   a virtual environment that has it already, or where it is to be made
"""
import json
import pathlib
import sys

from http_case import HttpServerTest
from http_openai_test import write_tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from pypi import packages  # noqa: E402


def find_openai():
    """The module; SkipTest where it cannot be had."""
    return packages("openai-venv", "PENSTOCK_OPENAI_VENV", "openai")[0]


class OpenAiClientServerTestCase(HttpServerTest):
    """Base: a server and clients of it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        write_tokenizer(cls.server.folder / "store" / "tiny")

    def official(self, **options):
        client = find_openai().OpenAI(**{"base_url": f"http://{self.server.http_address}/v1", "api_key": "none", "max_retries": 0, "timeout": 30, **options})
        self.addCleanup(client.close)
        return client

    def checked(self, answer, extra=()):
        """The answer again, after it was read anew from its JSON, strictly."""
        fields = answer.to_dict(mode="json", exclude_unset=True)
        for choice in fields.get("choices", ()) if fields.get("object") == "text_completion" else ():
            if choice["finish_reason"] is None:  # in a stream OpenAI sends it so, too, though its description has no such value
                choice["finish_reason"] = "stop"
        again = type(answer).model_validate_json(json.dumps(fields), strict=True)
        self.assert_no_more(again, "", set(extra))
        return again

    def assert_no_more(self, value, where, extra):
        for key in getattr(value, "model_extra", None) or {}:
            self.assertIn(key, extra, f"{where or type(value).__name__}: a field that OpenAI's answers do not have")
        for name, part in (value.__dict__ if hasattr(value, "model_fields_set") else {}).items():
            for item in part if isinstance(part, list) else [part]:
                self.assert_no_more(item, f"{where}.{name}", extra)
