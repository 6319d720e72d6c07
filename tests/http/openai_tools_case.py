"""What the tests of tools over OpenAI's API share: two tools, and answers that are the same streamed and not."""
from openai_case import OpenAiServerTestCase, events_of

# The prompt is the message alone, so that it can tell the fake worker what to say; of several messages all that they have.
TEMPLATE = ("{% if messages | length == 1 %}{{ messages[0].content }}{% else %}{% for m in messages %}{{ m.role }}: {{ m.content }}"
            "{% for call in m.tool_calls or [] %} calls {{ call.function.name }} with {{ call.function.arguments.city }}{% endfor %} | {% endfor %}{% endif %}")
WEATHER = {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {
    "type": "object", "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["city"],
    "$defs": {"city": {"type": "string", "maxLength": 8}}}}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
TOOLS = [WEATHER, CLOCK]


def gathered(events):
    """The message of a stream, put together as clients do it, and its finish reason."""
    message, calls, reason = {"content": None}, {}, None
    for event in events:
        choice = event["choices"][0]
        reason = choice["finish_reason"] or reason
        if choice["delta"].get("content"):
            message["content"] = (message["content"] or "") + choice["delta"]["content"]
        for piece in choice["delta"].get("tool_calls", ()):
            call = calls.setdefault(piece["index"], {"id": piece.get("id"), "type": piece.get("type"), "function": {"name": piece["function"].get("name"), "arguments": ""}})
            call["function"]["arguments"] += piece["function"]["arguments"]
    if calls:
        message["tool_calls"] = [calls[index] for index in range(len(calls))]
    return message, reason


class OpenAiToolsTestCase(OpenAiServerTestCase):
    template = TEMPLATE + "{# <tool_call> #}"
    environment = {"FAKE_WORKER_STEP_MS": "1"}.items()

    def answer(self, content, **body):
        """The message and the finish reason of a chat with tools, which are the same streamed and not."""
        asked = {"tools": TOOLS, "seed": 5, **body}
        reply = self.chat(content, **asked)
        self.assertEqual(reply.status, 200, reply.text)
        choice = reply.json["choices"][0]
        message = choice["message"]
        self.assertEqual((message.pop("role"), message.pop("refusal")), ("assistant", None))
        streamed, reason = gathered(events_of(self.chat(content, stream=True, **asked).body))
        self.assertEqual(reason, choice["finish_reason"])
        self.assertEqual([streamed["content"], self.without_ids(streamed)], [message["content"], self.without_ids(message)])
        return message, choice["finish_reason"]

    def without_ids(self, message):
        calls = []
        for call in message.get("tool_calls", ()):
            self.assertRegex(call["id"], self.id)
            self.assertEqual(call["type"], "function")
            calls.append((call["function"]["name"], call["function"]["arguments"]))
        return calls

    id = r"^call_[0-9a-f]{24}$"
