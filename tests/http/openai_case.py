"""What the tests of OpenAI's API over HTTP share: a server of two models, one without a chat template, and how official clients read its answers."""
import json

from http_case import HttpServerTest

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


class OpenAiServerTestCase(HttpServerTest):
    models = ("tiny", "bare")
    template = TEMPLATE

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        write_tokenizer(cls.server.folder / "store" / "tiny", cls.template)
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
