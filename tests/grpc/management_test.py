"""The management API over gRPC: models come and go while others serve; each refusal has TorchServe's code."""
import concurrent.futures
import json
import os
import threading
import unittest

import grpc

from penstock_server import FAKE_WORKER, ManagementServerTest, make_model, request, wait_until, wire

Code = grpc.StatusCode


@unittest.skipUnless(FAKE_WORKER, "a worker without a model loads faster; the rest of the path is the same")
class ModelLifeTest(ManagementServerTest):
    models = ("tiny",)
    store = (("one", None), ("two-v1", "1.0"), ("two-v2", "2.0"))

    def test_a_model_is_registered_serves_and_goes_while_another_serves(self):
        self.assertEqual(self.register("one"), 'Model "one" Version: 1.0 registered with 1 initial workers')
        self.addCleanup(lambda: self.assert_fails(Code.NOT_FOUND, lambda: self.unregister("one"), "Model not found: one"))
        self.assertTrue(self.predict("one"))
        self.assertTrue(self.predict("tiny"))
        self.assertEqual(self.client.health("one"), 1)
        self.assert_fails(Code.ALREADY_EXISTS, lambda: self.register("one"), "already registered")
        self.assertEqual(self.unregister("one"), 'Model "one" unregistered')
        self.assert_fails(Code.NOT_FOUND, lambda: self.predict("one"), "Model not found: one", "tiny")
        self.assertEqual(self.client.health("one"), 2)
        self.assertEqual(self.client.health(""), 1)
        self.assertTrue(self.predict("tiny"))

    def test_versions_live_side_by_side_and_one_is_the_default(self):
        self.register("two-v1", "two")
        self.register("two-v2", "two")
        self.addCleanup(lambda: [self.unregister("two", "1.0"), self.unregister("two")])
        for version in ("", "1.0", "2.0"):
            self.assertTrue(self.predict("two", version))
        self.assertEqual([m["modelVersion"] for m in self.describe("two", "all")], ["1.0", "2.0"])
        self.assertEqual(self.describe("two")[0]["modelVersion"], "1.0", "the first one is the default")
        self.assert_fails(Code.FAILED_PRECONDITION, lambda: self.unregister("two", "1.0"), "default")
        self.assert_fails(Code.NOT_FOUND, lambda: self.manage("SetDefault", wire.ModelRequest(model_name="two", model_version="3.0")), "3.0")
        self.manage("SetDefault", wire.ModelRequest(model_name="two", model_version="2.0"))
        self.assertEqual(self.describe("two")[0]["modelVersion"], "2.0")

    def test_workers_are_added_and_taken_away(self):
        self.register("one", "scaled", workers=1)
        self.addCleanup(lambda: self.unregister("scaled"))
        self.assertEqual(self.scale("scaled", 3), "Workers scaled to 3 for model: scaled")
        self.assertEqual([w["status"] for w in self.describe("scaled")[0]["workers"]], ["READY"] * 3)
        self.assertEqual(self.scale("scaled", 1, version="1.0"), "Workers scaled to 1 for model: scaled, version: 1.0")
        left = self.describe("scaled")[0]["workers"]
        self.assertEqual(len(left), 1)
        self.assertTrue(os.path.exists(f"/proc/{left[0]['pid']}"))
        self.assertTrue(self.predict("scaled"))

    def test_no_workers_at_first_means_unavailable_and_says_what_to_do(self):
        config = make_model(self.server.folder / "store" / "idle") / "model-config.yaml"
        config.write_text(config.read_text().replace("minWorkers: 1\n", ""))  # default_workers_per_model, which is 0
        self.assertIn("registered with 0 initial workers. Use scale workers API", self.register("idle", workers=0))
        self.addCleanup(lambda: self.unregister("idle"))
        self.assert_fails(Code.UNAVAILABLE, lambda: self.predict("idle"), "no worker", "scale it up")
        self.assertEqual(self.scale("idle", 1, synchronous=False), "Processing worker updates...")
        wait_until(lambda: self.describe("idle")[0]["workers"][0]["status"] == "READY", 30, "the worker loads")
        self.assertTrue(self.predict("idle"))

    def test_a_description_has_what_torchserve_says(self):
        model = self.describe("tiny", customized=True)[0]
        self.assertEqual((model["modelName"], model["modelVersion"], model["modelUrl"]), ("tiny", "1.0", "tiny"))
        self.assertEqual((model["minWorkers"], model["maxWorkers"], model["parallelType"], model["parallelLevel"]), (1, 1, "pp", 2))
        self.assertEqual((model["responseTimeout"], model["startupTimeout"], model["deviceType"]), (120, 60, "cpu"))
        self.assertTrue(model["loadedAtStartup"])
        self.assertEqual(model["jobQueueStatus"], {"remainingCapacity": 100, "pendingRequests": 0})
        self.assertGreater(model["workers"][0]["memoryUsage"], 0)
        self.assertEqual(model["customizedMetadata"]["stages"], 2)
        self.assertNotIn("customizedMetadata", self.describe("tiny")[0])

    def test_the_apis_numbers_are_stronger_than_the_files(self):
        self.register("one", "strong", batch_size=4, max_batch_delay=7, response_timeout=9, startup_timeout=33)
        self.addCleanup(lambda: self.unregister("strong"))
        model = self.describe("strong")[0]
        self.assertEqual([model[k] for k in ("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")], [4, 7, 9, 33])

    def test_the_longest_timeout_is_no_short_one(self):
        self.register("one", "patient", workers=0)
        self.addCleanup(lambda: self.unregister("patient"))
        self.assertIn("Workers scaled to 1", self.scale("patient", 1, timeout=2147483647))

    def test_lists_come_in_pages(self):
        for name in ("b", "a"):
            self.register("one", name, workers=0)
            self.addCleanup(lambda name=name: self.unregister(name))
        self.assertEqual([m["modelName"] for m in self.listed()["models"]], ["a", "b", "tiny"])
        first = self.listed(limit=2)
        self.assertEqual([m["modelName"] for m in first["models"]], ["a", "b"])
        rest = self.listed(limit=2, next_page_token=int(first["nextPageToken"]))
        self.assertEqual(rest, {"models": [{"modelName": "tiny", "modelUrl": "tiny"}]})

    def test_refusals_have_torchserves_codes(self):
        cases = [
            (Code.INVALID_ARGUMENT, lambda: self.register(""), "url is required"),
            (Code.NOT_FOUND, lambda: self.register("../outside"), "Relative path is not allowed in url"),
            (Code.NOT_FOUND, lambda: self.register("https://example.com/m.mar"), "does not match any allowed URL"),
            (Code.NOT_FOUND, lambda: self.register("missing"), "missing"),
            (Code.INVALID_ARGUMENT, lambda: self.register("/etc"), "inside the model store"),
            (Code.INVALID_ARGUMENT, lambda: self.register("one", "a/b"), "model name"),
            (Code.INVALID_ARGUMENT, lambda: self.register("one", "x", runtime="ruby"), "RuntimeType"),
            (Code.INTERNAL, lambda: self.register("one", "x", handler="service.py:handle"), "model 'x'"),
            (Code.NOT_FOUND, lambda: self.scale("nobody", 1), "Model not found: nobody"),
            (Code.NOT_FOUND, lambda: self.scale("tiny", 1, version="9"), "Model version: 9"),
            (Code.INVALID_ARGUMENT, lambda: self.scale("tiny", 2, max_worker=1), "max_worker"),
            (Code.INVALID_ARGUMENT, lambda: self.scale("tiny", 1, max_worker=-1), "max_worker"),
            (Code.INVALID_ARGUMENT, lambda: self.scale("tiny", 1, max_worker=1025), "expected at most 1024, found 1025"),
            (Code.INTERNAL, lambda: self.scale("tiny", -1), "min_worker"),
            (Code.NOT_FOUND, lambda: self.describe("nobody"), "nobody"),
            (Code.NOT_FOUND, lambda: self.describe("tiny", "9"), "9"),
            (Code.NOT_FOUND, lambda: self.unregister("nobody"), "nobody"),
        ]
        for code, call, word in cases:
            with self.subTest(word=word):
                self.assert_fails(code, call, word)

    def test_garbage_is_refused_and_the_server_lives(self):
        for method in ("RegisterModel", "ScaleWorker", "DescribeModel"):
            with self.assertRaises(grpc.RpcError):
                self.manage(method, b"\xff" * 40)
        self.assertTrue(self.listed()["models"])


@unittest.skipUnless(FAKE_WORKER, "needs slow workers")
class DrainTest(ManagementServerTest):
    models = ("tiny",)
    store = (("one", None),)
    environment = {"FAKE_WORKER_STEP_MS": "10"}.items()

    def streams(self, model, count):
        """Streams of about a second, each begun."""
        calls = [self.client.stream(request(model=model, prompt="a b c", max_tokens=100), timeout=60) for _ in range(count)]
        for call in calls:
            next(call)
        return calls

    def test_scaling_down_lets_running_streams_finish(self):
        self.register("one", "down", workers=2)
        self.addCleanup(lambda: self.unregister("down"))
        calls = self.streams("down", 4)  # on both workers
        self.scale("down", 1)
        self.assertEqual([len(list(call)) for call in calls], [99] * 4)

    def test_a_worker_that_does_not_finish_in_time_costs_its_streams_only(self):
        self.register("one", "late", workers=2)
        self.addCleanup(lambda: self.unregister("late"))
        calls = [self.client.stream(request(model="late", prompt="a", max_tokens=3000), timeout=60) for _ in range(2)]
        for call in calls:
            next(call)

        def outcome(call):
            try:
                list(call)
                return Code.OK
            except grpc.RpcError as failure:
                return failure.code()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            ends = [pool.submit(outcome, call) for call in calls]
            self.scale("late", 1, timeout=1)
            first = next(concurrent.futures.as_completed(ends, timeout=10))
            self.assertEqual(first.result(), Code.UNAVAILABLE)
            self.assertEqual(sum(end.done() for end in ends), 1, "the other worker's stream goes on")
            for call in calls:
                call.cancel()

    def test_unregister_drains_and_refuses_newcomers(self):
        self.register("one", "leaving", workers=1)
        call = self.streams("leaving", 1)[0]
        gone = threading.Thread(target=lambda: self.unregister("leaving"))
        gone.start()
        wait_until(lambda: "leaving" not in [m["modelName"] for m in self.listed()["models"]], 10)
        self.assert_fails(Code.NOT_FOUND, lambda: self.predict("leaving"))
        self.assertEqual(len(list(call)), 99)
        gone.join(20)
        self.assertFalse(gone.is_alive())


@unittest.skipUnless(FAKE_WORKER, "needs a worker that fails on request")
class FailedLoadTest(ManagementServerTest):
    models = ()
    store = (("one", None),)
    environment = {"FAKE_WORKER_LOAD": "fail"}.items()

    def test_a_model_that_cannot_be_loaded_is_not_registered(self):
        self.assert_fails(Code.INTERNAL, lambda: self.register("one"), "Error while creating workers", "model.safetensors is truncated")
        self.assertEqual(self.listed(), {"models": []})
        self.assertEqual(json.loads(self.client.ping()), {"status": "Healthy"})

    def test_a_server_without_models_serves_and_says_so(self):
        self.assertEqual(self.client.health(""), 1)
        self.assert_fails(Code.NOT_FOUND, lambda: self.predict("one"), "none")


@unittest.skipUnless(FAKE_WORKER, "needs a worker that ends on request")
class LeftLoadTest(ManagementServerTest):
    models = ()
    store = (("one", None),)
    environment = {"FAKE_WORKER_LOAD": "leave"}.items()

    def test_a_worker_that_ends_while_it_loads_says_why_itself(self):
        self.assert_fails(Code.INTERNAL, lambda: self.register("one"), "Error while creating workers", "rank 0", "exit code 3", "the disk is gone")


class ModelApiTest(ManagementServerTest):
    """Without --enable-model-api models can be scaled, not registered or unregistered."""

    def test_it_is_off_by_default(self):
        self.assert_fails(Code.PERMISSION_DENIED, lambda: self.register("tiny"), "Model API disabled")
        self.assert_fails(Code.PERMISSION_DENIED, lambda: self.unregister("tiny"), "Model API disabled")
        self.assertEqual(self.scale("tiny", 1), "Workers scaled to 1 for model: tiny")

    def test_the_management_port_has_health_and_reflection_and_no_inference(self):
        listed = self.manager.reflect(wire.ReflectionRequest(list_services="*"), "v1")
        names = [s.name for s in listed.list_services_response.service]
        self.assertIn("org.pytorch.serve.grpc.management.ManagementAPIsService", names)
        self.assertEqual(self.manager.health(""), 1)
        self.assert_fails(Code.UNIMPLEMENTED, lambda: self.manager.predict(request(prompt="x")))
        self.assert_fails(Code.UNIMPLEMENTED, lambda: self.client.manage("ListModels", wire.ListModelsRequest()))
