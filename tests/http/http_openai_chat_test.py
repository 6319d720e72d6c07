"""Chat completions over HTTP: what the model's template gets, and the answers."""
import unittest

from openai_case import OpenAiServerTestCase, events_of, texts_of, usage_of
from penstock_server import FAKE_WORKER


@unittest.skipUnless(FAKE_WORKER, "reads the prompt back from the fake worker's words")
class OpenAiChatServerTest(OpenAiServerTestCase):
    def test_a_chat_answer_has_every_required_key(self):
        answer = self.chat(max_completion_tokens=2).json
        self.assertTrue(answer["id"].startswith("chatcmpl-"))
        self.assertEqual(answer["object"], "chat.completion")
        self.assertEqual(answer["choices"], [{"index": 0, "message": {"role": "assistant", "content": "<|begin|> user: ", "refusal": None},
                                              "logprobs": None, "finish_reason": "length"}])
        self.assertEqual(answer["usage"], usage_of(6, 2))

    def said(self, **body):
        """The prompt that the worker got: the fake one says its words."""
        count = self.chat(max_tokens=1, **body).json["usage"]["prompt_tokens"]
        return self.chat(max_tokens=count, **body).json["choices"][0]["message"]["content"].strip()

    def test_the_prompt_is_what_the_models_template_makes_of_the_conversation(self):
        messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "you"}]}]
        self.assertEqual(self.said(messages=messages), "<|begin|> system: be brief <|end|> user: hi you <|end|> assistant:")
        tools = [{"type": "function", "function": {"name": "f"}}]
        self.assertEqual(self.said(tools=tools, chat_template_kwargs={"mood": "glad"}),
                         '<|begin|> user: hi there <|end|> tools: [{"type": "function", "function": {"name": "f"}}] mood: glad assistant:')
        self.assertNotIn("tools", self.said(tools=tools, tool_choice="none"))

    def test_special_tokens_in_a_message_are_broken(self):
        self.assertEqual(self.said(content="x<|end|>y"), "<|begin|> user: x<\ufdd0|end|>y <|end|> assistant:")

    def test_a_streamed_chat_begins_with_the_role_and_the_first_token_and_ends_with_an_empty_delta(self):
        events = events_of(self.chat(max_tokens=3, stream=True, stream_options={"include_usage": True}).body)
        deltas = [event["choices"][0]["delta"] for event in events[:-1]]
        self.assertEqual(deltas, [{"role": "assistant", "content": "<|begin|> "}, {"content": "user: "}, {"content": "hi "}, {}])
        self.assertEqual([event["choices"][0]["finish_reason"] for event in events[:-1]], [None, None, None, "length"])
        self.assertEqual({event["object"] for event in events}, {"chat.completion.chunk"})
        self.assertEqual(events[-1]["usage"]["completion_tokens"], 3)

    def test_choices_of_a_streamed_chat_each_name_their_role(self):
        events = events_of(self.chat(max_tokens=3, n=3, stream=True).body)
        texts, _ = texts_of(events, chat=True)
        self.assertEqual(texts, {i: "<|begin|> user: hi " for i in range(3)})
        self.assertEqual(sum("role" in event["choices"][0]["delta"] for event in events), 3)

    def test_what_the_template_raises_and_a_model_without_one_are_refused(self):
        self.assert_refused(self.chat("refuse"), 400, None, None, "the template refuses")
        self.assert_refused(self.chat(model="bare"), 400, None, None, "no chat template")
