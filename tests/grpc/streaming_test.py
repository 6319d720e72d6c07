"""What a client gets when all is well: text in pieces, whole texts, health, reflection."""
import concurrent.futures
import json

import grpc

from penstock_server import LONG, ServerTest, request, wire


class StreamTest(ServerTest):
    models = ("tiny", "other")

    def test_a_stream_brings_text_in_several_messages_none_of_them_empty(self):
        pieces = self.client.stream_text(request(prompt="one two three", max_tokens=12, temperature=0))
        self.assertGreater(len(pieces), 1)
        self.assertTrue(all(pieces), pieces)

    def test_predictions_brings_the_same_text_in_one_message(self):
        message = request(prompt="one two three", max_tokens=12, temperature=0)
        self.assertEqual(self.client.predict(message).prediction.decode(), "".join(self.client.stream_text(message)))

    def test_a_bare_prompt_needs_no_json(self):
        call = self.client.stream(request(text="Once upon a time"))
        self.assertTrue(next(call).prediction)
        call.cancel()

    def test_the_version_1_0_is_the_model_and_so_is_no_version(self):
        for version in ("", "1.0"):
            self.assertTrue(self.client.stream_text(request(version=version, prompt="a b", max_tokens=3)))

    def test_the_second_model_is_served_beside_the_first(self):
        self.assertTrue(self.client.stream_text(request(model="other", prompt="a b", max_tokens=3)))

    def test_many_streams_run_at_once_and_do_not_mix(self):
        def run(i):
            message = request(prompt=f"word{i} and word{i}", max_tokens=9, temperature=0)
            return "".join(self.client.stream_text(message, timeout=60))
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            together = list(pool.map(run, range(12)))
        alone = [run(i) for i in range(12)]
        self.assertEqual(together, alone)

    def test_the_end_says_how_many_tokens_there_were(self):
        call = self.client.stream(request(prompt="a b c", max_tokens=5, temperature=0))
        list(call)
        trailing = dict(call.trailing_metadata())
        self.assertIn(trailing["penstock-finish-reason"], ("length", "stop"))
        self.assertLessEqual(int(trailing["penstock-completion-tokens"]), 5)
        self.assertGreater(int(trailing["penstock-prompt-tokens"]), 0)

    def test_messages_come_while_the_generation_still_runs(self):
        call = self.client.stream(request(prompt="a b c", max_tokens=LONG))
        next(call)
        self.assertTrue(call.is_active(), "the first message came with the end")
        call.cancel()


class HealthTest(ServerTest):
    def test_health_says_serving_for_the_server_and_for_the_model(self):
        self.assertEqual(self.client.health(""), 1)
        self.assertEqual(self.client.health("tiny"), 1)

    def test_health_of_an_unknown_service_is_not_found(self):
        self.assert_fails(grpc.StatusCode.NOT_FOUND, lambda: self.client.health("nobody"))

    def test_ping_answers_torchserves_json(self):
        self.assertEqual(json.loads(self.client.ping()), {"status": "Healthy"})

    def test_reflection_lists_the_services_and_describes_the_inference_service(self):
        for version in ("v1", "v1alpha"):
            with self.subTest(version=version):
                listed = self.client.reflect(wire.ReflectionRequest(list_services="*"), version)
                names = [s.name for s in listed.list_services_response.service]
                self.assertIn("org.pytorch.serve.grpc.inference.InferenceAPIsService", names)
                self.assertIn("grpc.health.v1.Health", names)
                described = self.client.reflect(wire.ReflectionRequest(
                    file_containing_symbol="org.pytorch.serve.grpc.inference.InferenceAPIsService"), version)
                files = b"".join(described.file_descriptor_response.file_descriptor_proto)
                for name in (b"StreamPredictions2", b"PredictionsRequest", b"sequence_id"):
                    self.assertIn(name, files)
