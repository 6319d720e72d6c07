"""OpenAI's official Python client, unmodified, against the server. Every answer is checked as it came: by openai_schemas, and strictly by the client's own types,
which are generated from OpenAI's published OpenAPI description."""
import json
import os
import signal
import threading
import unittest

from openai_client_case import OpenAiClientServerTestCase, find_openai
from openai_tools_case import TOOLS, OpenAiToolsTestCase
from penstock_server import FAKE_WORKER, wait_until

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


def setUpModule():
    global openai
    openai = find_openai()


@unittest.skipUnless(FAKE_WORKER, "reads the prompt back from the fake worker's words")
class OpenAiClientServerTest(OpenAiClientServerTestCase):
    def test_models(self):
        client = self.official()
        self.assertEqual([model.id for model in client.models.list()], ["tiny"])
        self.assertEqual(client.models.retrieve("tiny").owned_by, "penstock")
        with self.assertRaises(openai.NotFoundError) as raised:
            client.models.retrieve("huge")
        self.assertEqual((raised.exception.status_code, raised.exception.code, raised.exception.param), (404, "model_not_found", "model"))

    def test_a_completion(self):
        answer = self.official().completions.create(model="tiny", prompt="a b", max_tokens=3, temperature=0.5, seed=7, stop=["zzz"], user="me")
        self.assertEqual((answer.choices[0].text, answer.choices[0].finish_reason, answer.model, answer.object), ("a b a ", "length", "tiny", "text_completion"))
        self.assertEqual((answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens), (2, 3, 5))

    def test_completions_of_many_prompts_with_choices_log_probabilities_and_echo(self):
        client = self.official()
        answer = client.completions.create(model="tiny", prompt=["a", "b"], n=2, max_tokens=2, logprobs=2)
        self.assertEqual([(c.index, c.text) for c in answer.choices], [(0, "a a "), (1, "a a "), (2, "b b "), (3, "b b ")])
        self.assertEqual([len(c.logprobs.tokens) for c in answer.choices], [2] * 4)
        self.assertEqual(client.completions.create(model="tiny", prompt="a b ", max_tokens=1, echo=True).choices[0].text, "a b a ")
        self.assertEqual(client.completions.create(model="tiny", prompt=[7, 8], max_tokens=2).choices[0].text, "7 8 ")

    def test_a_completion_streamed(self):
        stream = self.official().completions.create(model="tiny", prompt="a b", max_tokens=4, n=2, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        for index in (0, 1):
            self.assertEqual("".join(c.text for chunk in chunks for c in chunk.choices if c.index == index), "a b a b ")
        self.assertEqual((chunks[-1].choices, chunks[-1].usage.completion_tokens), ([], 8))
        self.assertEqual(len({chunk.id for chunk in chunks}), 1)

    def test_a_chat(self):
        answer = self.official().chat.completions.create(model="tiny", messages=MESSAGES, max_completion_tokens=4, temperature=0, presence_penalty=0.1,
                                                         frequency_penalty=0.1, top_p=0.9, seed=1, logit_bias={"5": 1})
        self.assertEqual((answer.choices[0].message.role, answer.choices[0].message.content), ("assistant", "<|begin|> system: Be brief. "))
        self.assertEqual((answer.choices[0].finish_reason, answer.usage.completion_tokens), ("length", 4))

    def test_a_chat_with_log_probabilities(self):
        answer = self.official().chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=2, logprobs=True, top_logprobs=3)
        self.assertEqual([len(token.top_logprobs) for token in answer.choices[0].logprobs.content], [3, 3])

    def test_a_chat_streamed(self):
        client = self.official()
        stream = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=3, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        self.assertEqual("".join(c.delta.content or "" for chunk in chunks for c in chunk.choices), "<|begin|> system: Be ")
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1], "length")
        self.assertEqual((chunks[-1].usage.completion_tokens, chunks[-1].choices), (3, []))
        without = list(client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=3, stream=True))
        self.assertTrue(all(chunk.usage is None and chunk.choices for chunk in without))

    def test_the_clients_own_gathering_of_a_stream(self):
        with self.official().chat.completions.stream(model="tiny", messages=MESSAGES, max_tokens=3) as stream:
            for _ in stream:
                pass
            with self.assertRaises(openai.LengthFinishReasonError) as raised:
                stream.get_final_completion()
        self.assertEqual(raised.exception.completion.choices[0].message.content, "<|begin|> system: Be ")

    def test_errors_are_the_clients_exceptions(self):
        client = self.official()
        for ask, kind, code, param in (
                (lambda: client.completions.create(model="huge", prompt="x"), openai.NotFoundError, "model_not_found", "model"),
                (lambda: client.completions.create(model="tiny", prompt="x", temperature=9), openai.BadRequestError, "invalid_value", "temperature"),
                (lambda: client.chat.completions.create(model="tiny", messages=[]), openai.BadRequestError, "invalid_value", "messages"),
                (lambda: client.chat.completions.create(model="tiny", messages=MESSAGES, extra_body={"temprature": 1}), openai.BadRequestError, "unknown_parameter", "temprature"),
                (lambda: client.embeddings.create(model="tiny", input="x"), openai.NotFoundError, "unknown_url", None),
                (lambda: client.completions.create(model="tiny", prompt="[error] x"), openai.InternalServerError, "internal_error", None)):
            with self.assertRaises(kind) as raised:
                ask()
            self.assertEqual((raised.exception.code, raised.exception.param), (code, param), str(raised.exception))
            self.assertTrue(raised.exception.request_id)

    def test_an_error_in_mid_stream_is_raised_by_the_iteration(self):
        stream = self.official().completions.create(model="tiny", prompt="a b", max_tokens=3000, stream=True)
        next(stream)
        os.kill(self.server.ranks()[1], signal.SIGKILL)
        with self.assertRaises(openai.APIError) as raised:
            for _ in stream:
                pass
        self.assertIn("SIGKILL", str(raised.exception))
        self.assertEqual(self.official(max_retries=5).completions.create(model="tiny", prompt="a", max_tokens=1).choices[0].text, "a ")

    def test_a_stream_that_is_closed_ends_the_work(self):
        before = self.server.worker_log().count("cancelled after")
        stream = self.official().completions.create(model="tiny", prompt="a b", max_tokens=3000, stream=True)
        next(stream)
        stream.close()
        wait_until(lambda: self.server.worker_log().count("cancelled after") > before, 10, "the worker hears of it")

    def test_the_asynchronous_client(self):
        import asyncio

        async def ask():
            async with openai.AsyncOpenAI(base_url=f"http://{self.server.http_address}/v1", api_key="none", max_retries=0) as client:
                stream = await client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=3, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        self.assertEqual(asyncio.run(ask()), "<|begin|> system: Be ")


@unittest.skipUnless(FAKE_WORKER, "tells the fake worker what to say")
class OpenAiClientToolsServerTest(OpenAiClientServerTestCase):
    template = OpenAiToolsTestCase.template

    def ask(self, content, **options):
        messages = [{"role": "user", "content": content}]
        return self.official().chat.completions.create(model="tiny", messages=messages, tools=TOOLS, **options)

    def test_a_call_is_made_and_answered(self):
        choice = self.ask('[say] Well. <tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>').choices[0]
        self.assertEqual((choice.finish_reason, choice.message.content), ("tool_calls", "Well."))
        [call] = choice.message.tool_calls
        self.assertEqual((call.type, call.function.name, json.loads(call.function.arguments)), ("function", "weather", {"city": "Rome"}))
        messages = [{"role": "user", "content": "a"}, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        answer = self.official().chat.completions.create(model="tiny", messages=messages, tools=TOOLS, max_tokens=13)
        self.assertEqual(answer.choices[0].message.content.strip(), "user: a | assistant: Well. calls weather with Rome | tool: sunny |")

    def test_a_call_streamed_is_gathered_by_the_client(self):
        content = '[say] <tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call> <tool_call>{"name": "clock", "arguments": {}}</tool_call>'
        for chunk in self.ask(content, stream=True):
            self.assertEqual(len(chunk.choices), 1)
        with self.official().chat.completions.stream(model="tiny", messages=[{"role": "user", "content": content}], tools=TOOLS) as stream:
            message = stream.get_final_completion().choices[0].message
        self.assertEqual([(call.function.name, call.function.arguments) for call in message.tool_calls], [("weather", '{"city": "Rome"}'), ("clock", "{}")])

    def test_a_demanded_call(self):
        choice = self.ask("[constrained]", tool_choice="required", seed=1).choices[0]
        self.assertEqual((choice.finish_reason, choice.message.content), ("tool_calls", None))
        [call] = self.ask("[constrained]", tool_choice={"type": "function", "function": {"name": "clock"}}).choices[0].message.tool_calls
        self.assertEqual((call.function.name, json.loads(call.function.arguments)), ("clock", {}))
        with self.assertRaises(openai.BadRequestError) as raised:
            self.ask("x", tool_choice={"type": "function", "function": {"name": "nothing"}})
        self.assertEqual(raised.exception.param, "tool_choice")


@unittest.skipUnless(FAKE_WORKER, "needs a worker that hangs on request")
class OpenAiClientRetryServerTest(OpenAiClientServerTestCase):
    config = "jobQueueSize: 1\nhandler:\n  max_concurrent: 1\n"

    def test_a_full_queue_is_tried_again_after_the_time_that_the_server_says(self):
        raws = []
        for _ in range(2):  # one runs, one waits
            raw = self.connect()
            body = b'{"model": "tiny", "prompt": "[hang]", "max_tokens": 9}'
            raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            raws.append(raw)
        self.addCleanup(lambda: [raw.close() for raw in raws])

        def full():
            try:
                self.official(timeout=1).completions.create(model="tiny", prompt="x", max_tokens=1)
            except openai.RateLimitError as refused:
                return refused
            except openai.APITimeoutError:
                return None
        found = []
        wait_until(lambda: found.append(full()) or found[-1], 15, "the queue is full")
        self.assertEqual((found[-1].status_code, found[-1].code, found[-1].type), (429, "rate_limit_exceeded", "rate_limit_error"))
        self.assertEqual(found[-1].response.headers["retry-after"], "1")

        statuses = []

        def seen(response):
            statuses.append(response.status_code)
            if statuses == [429]:
                threading.Thread(target=lambda: [raw.close() for raw in raws]).start()
        client = self.official(max_retries=8, http_client=openai.DefaultHttpxClient(event_hooks={"response": [seen]}))
        answer = client.completions.create(model="tiny", prompt="x", max_tokens=1)
        self.assertEqual(answer.choices[0].text, "x ")
        self.assertEqual((statuses[0], statuses[-1]), (429, 200))
        self.assertEqual(set(statuses), {429, 200})
