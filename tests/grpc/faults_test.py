"""Clients that leave, workers that die, servers that are told to stop."""
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
import unittest

import grpc

from penstock_server import BIN, FAKE_WORKER, FREE_PORTS, LONG, Server, ServerTest, make_model, request, run_penstock, wait_until

Code = grpc.StatusCode


class CancelTest(ServerTest):
    """The group runs one request at a time: the next one can only begin when the cancelled one has really ended."""
    config = "handler:\n  max_concurrent: 1\n"
    environment = {"FAKE_WORKER_STEP_MS": "20"}.items()  # LONG takes a minute

    def assert_free(self):
        begin = time.monotonic()
        self.assertTrue(self.client.stream_text(request(prompt="next", max_tokens=3), timeout=15))
        self.assertLess(time.monotonic() - begin, 10, "the cancelled request still holds its place")

    def test_a_cancelled_stream_stops_the_work(self):
        call = self.client.stream(request(prompt="a b", max_tokens=LONG), timeout=120)
        next(call)
        call.cancel()
        with self.assertRaises(grpc.RpcError) as raised:
            list(call)
        self.assertEqual(raised.exception.code(), Code.CANCELLED)
        self.assert_free()

    def test_a_deadline_that_passes_stops_the_work(self):
        self.assert_fails(Code.DEADLINE_EXCEEDED, lambda: self.client.predict(request(prompt="a b " * 20, max_tokens=LONG), timeout=0.05))
        self.assert_free()

    def test_a_client_that_vanishes_stops_the_work(self):
        other = self.server.new_client()
        call = other.stream(request(prompt="a b", max_tokens=LONG), timeout=120)
        next(call)
        other.close()
        self.assert_free()

    def test_a_request_cancelled_in_the_queue_never_runs(self):
        running = self.client.stream(request(prompt="a b", max_tokens=LONG), timeout=120)
        next(running)
        waiting = self.client.stream(request(prompt="a b", max_tokens=LONG), timeout=120)
        time.sleep(0.1)
        waiting.cancel()
        running.cancel()
        self.assert_free()

    @unittest.skipUnless(FAKE_WORKER, "needs the fake worker's log")
    def test_the_worker_stops_within_a_step(self):
        call = self.client.stream(request(prompt="stop me", max_tokens=LONG), timeout=120)
        for _ in range(5):
            next(call)
        before = self.server.worker_log().count("cancelled after")
        call.cancel()
        wait_until(lambda: self.server.worker_log().count("cancelled after") > before, 5, "the worker hears of the cancelled call")


class KilledRankTest(ServerTest):
    environment = {"FAKE_WORKER_STEP_MS": "10"}.items()

    def kill_in_mid_stream(self, rank):
        call = self.client.stream(request(prompt="a b c", max_tokens=LONG), timeout=120)
        next(call)
        front_door = self.server.process.pid
        os.kill(self.server.ranks()[rank], signal.SIGKILL)
        begin = time.monotonic()
        with self.assertRaises(grpc.RpcError) as raised:
            list(call)
        self.assertLess(time.monotonic() - begin, 2)
        self.assertEqual(raised.exception.code(), Code.UNAVAILABLE)
        for word in (f"rank {rank}", "SIGKILL", "tiny"):
            self.assertIn(word, raised.exception.details())
        # A request that comes while the group restarts waits for it.
        self.assertTrue(self.client.stream_text(request(prompt="again", max_tokens=3), timeout=15))
        self.assertIsNone(self.server.process.poll())
        self.assertEqual(self.server.process.pid, front_door)

    def test_killing_the_last_rank(self):
        self.kill_in_mid_stream(1)

    def test_killing_the_first_rank(self):
        self.kill_in_mid_stream(0)

    def test_health_follows_the_worker(self):
        watch = self.client.watch("tiny", timeout=30)
        self.assertEqual(next(watch).status, 1)
        os.kill(self.server.ranks()[1], signal.SIGKILL)
        self.assertEqual(next(watch).status, 2)
        self.assertEqual(json.loads(self.client.ping()), {"status": "Healthy"}, "it is being restarted")
        self.assertEqual(next(watch).status, 1)
        watch.cancel()

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that crashes on request")
    def test_a_prompt_that_crashes_the_worker_costs_only_its_own_call(self):
        self.assert_fails(Code.UNAVAILABLE, lambda: self.client.stream(request(prompt="[crash] now")), "rank 0", "SIGABRT")
        self.assertTrue(self.client.stream_text(request(prompt="again", max_tokens=3), timeout=15))

    def test_no_worker_outlives_the_front_door(self):
        server = Server()
        ranks = server.ranks()
        self.assertEqual(sorted(ranks), [0, 1])
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in ranks.values()), 5, "the workers end with the front door")
        server.close()


class RetryServerTest(ServerTest):
    """handler.retry: requests outlive their worker group."""
    config = "handler:\n  retry: true\n  dtype: fp32\n"
    environment = {"FAKE_WORKER_STEP_MS": "10"}.items()

    def ask(self, i, **fields):
        return request(prompt=f"The {('rank', 'stage', 'layer', 'pipe')[i]} of", max_tokens=min(LONG, 190), temperature=0.8, seed=i + 1, **fields)

    def test_a_stage_killed_in_mid_decode_costs_its_requests_a_pause_and_no_word(self):
        undisturbed = [self.client.stream_text(self.ask(i), timeout=60) for i in range(4)]
        for rank in (1, 0):
            with self.subTest(killed=rank):
                ranks, moved = self.server.ranks(), self.server.stderr.count("go on with another")
                calls = [self.client.stream(self.ask(i), timeout=60) for i in range(4)]
                texts = [[next(call).prediction.decode()] for call in calls]
                os.kill(ranks[rank], signal.SIGKILL)
                for text, call in zip(texts, calls):
                    text += [message.prediction.decode() for message in call]
                    self.assertEqual(call.code(), Code.OK)
                self.assertEqual(["".join(text) for text in texts], ["".join(text) for text in undisturbed])
                self.assertNotEqual(self.server.ranks(), ranks)
                self.assertEqual(self.server.stderr.count("go on with another"), moved + 1, "there was something to move")

    def test_the_end_counts_all_tokens(self):
        call = self.client.stream(self.ask(0), timeout=60)
        next(call)
        os.kill(self.server.ranks()[1], signal.SIGKILL)
        list(call)
        disturbed = dict(call.trailing_metadata())
        call = self.client.stream(self.ask(0), timeout=60)
        list(call)
        for key in ("penstock-completion-tokens", "penstock-prompt-tokens", "penstock-finish-reason"):
            self.assertEqual(disturbed[key], dict(call.trailing_metadata())[key])

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that crashes on request")
    def test_a_prompt_that_crashes_workers_ends_with_the_second_and_the_others_go_on(self):
        other = self.client.stream(request(prompt="a b", max_tokens=400), timeout=60)
        next(other)
        self.assert_fails(Code.UNAVAILABLE, lambda: self.client.stream(request(prompt="[crash] now"), timeout=60), "rank 0", "SIGABRT")
        self.assertEqual(len(list(other)), 399)


class ShutdownTest(unittest.TestCase):
    def setUp(self):
        self.server = Server(environment={"FAKE_WORKER_STEP_MS": "20"}.items())
        self.addCleanup(self.server.close)

    def test_sigterm_lets_a_stream_finish_and_exits_0(self):
        call = self.server.client.stream(request(prompt="a b c", max_tokens=60, temperature=0), timeout=60)
        pieces = [next(call)]
        ranks = self.server.ranks()
        self.server.terminate()
        pieces += list(call)
        self.assertEqual(call.code(), Code.OK)
        if FAKE_WORKER:
            self.assertEqual(len(pieces), 60)
        self.assertEqual(self.server.wait_ended(), 0)
        self.assertFalse([pid for pid in ranks.values() if os.path.exists(f"/proc/{pid}")], "no worker is left")

    @unittest.skipUnless(FAKE_WORKER, "needs a slow worker")
    def test_while_it_drains_new_requests_are_refused_and_health_says_so(self):
        call = self.server.client.stream(request(prompt="a b c", max_tokens=100), timeout=60)
        next(call)
        self.server.terminate()
        wait_until(lambda: self.server.client.health("") == 2, 5, "health says NOT_SERVING")

        def refused():  # soon after health has said so
            try:
                self.server.client.predict(request(prompt="x", max_tokens=1))
            except grpc.RpcError as failure:
                return failure
        self.assertEqual(wait_until(refused, 5, "new requests are refused").code(), Code.UNAVAILABLE)
        self.assertEqual(json.loads(self.server.client.ping()), {"status": "Unhealthy"})
        connection = http.client.HTTPConnection(self.server.http_address, timeout=10)
        self.addCleanup(connection.close)
        connection.request("GET", "/ping")
        self.assertEqual(connection.getresponse().status, 500)
        list(call)
        self.assertEqual(self.server.wait_ended(), 0)

    @unittest.skipUnless(FAKE_WORKER, "needs a slow worker")
    def test_a_second_signal_ends_it_at_once(self):
        call = self.server.client.stream(request(prompt="[hang] x"), timeout=60)
        threading.Thread(target=lambda: call.exception(), daemon=True).start()
        wait_until(lambda: self.server.client.ping(), 5)
        time.sleep(0.3)
        self.server.terminate()
        time.sleep(0.5)
        self.assertIsNone(self.server.process.poll(), "it waits for the running request")
        begin = time.monotonic()
        self.server.terminate()
        self.server.wait_ended(15)
        self.assertLess(time.monotonic() - begin, 10)

    def test_sigint_is_as_good_as_sigterm(self):
        self.server.process.send_signal(signal.SIGINT)
        self.assertEqual(self.server.wait_ended(), 0)


class BadStartTest(unittest.TestCase):
    """What cannot start says why in one message: exit code 2 for what the user can correct, else 1."""

    def start(self, **arguments):
        server = Server(wait=False, **arguments)
        self.addCleanup(server.close)
        code = server.wait_ended(30)
        self.assertNotIn("Model server started", server.process.stdout.read().decode())
        return code, server.stderr

    def test_a_port_that_is_taken_is_named(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            code, said = self.start(port=port)
        self.assertEqual(code, 1)
        self.assertIn(f"127.0.0.1:{port}", said)
        self.assertIn("in use", said)

    def test_two_servers_cannot_share_a_port(self):
        first = Server()
        self.addCleanup(first.close)
        code, said = self.start(port=first.address.rsplit(":", 1)[1])
        self.assertEqual(code, 1)
        self.assertIn(first.address, said)

    def test_an_unknown_key_of_the_model_config_is_named_with_its_line(self):
        code, said = self.start(config="respnseTimeout: 3\n")
        self.assertEqual(code, 2)
        for word in ("model-config.yaml", ":6", "respnseTimeout", "responseTimeout"):
            self.assertIn(word, said)

    def test_a_folder_that_is_not_there(self):
        code, _, said = run_penstock("serve", "--models", "x=/no/such/folder", "--port", "0",
                                     environment={"PENSTOCK_WORKER": "/bin/true"}.items())
        self.assertEqual(code, 2)
        self.assertIn("/no/such/folder", said)

    def test_no_model_at_all(self):
        code, _, said = run_penstock("serve")
        self.assertEqual(code, 2)
        self.assertIn("--models", said)

    def test_a_worker_program_that_is_not_there(self):
        server = Server(wait=False)
        self.addCleanup(server.close)
        code, _, said = run_penstock("serve", "--models", f"tiny={server.folder}/store/tiny",
                                     environment={"PENSTOCK_WORKER": "/no/worker"}.items())
        self.assertEqual(code, 2)
        self.assertIn("/no/worker", said)

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that fails on request")
    def test_a_rank_that_ends_while_loading_is_named_with_the_end_of_its_log(self):
        code, said = self.start(environment={"FAKE_WORKER_LOAD": "exit"}.items())
        self.assertEqual(code, 1)
        for word in ("rank 1", "exit code 3", "a.weight"):
            self.assertIn(word, said)

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that fails on request")
    def test_a_model_that_cannot_be_loaded_says_why(self):
        code, said = self.start(environment={"FAKE_WORKER_LOAD": "fail"}.items())
        self.assertEqual(code, 1)
        self.assertIn("model.safetensors is truncated", said)

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that hangs on request")
    def test_a_model_that_never_loads_ends_with_startup_timeout(self):
        server = Server(wait=False, environment={"FAKE_WORKER_LOAD": "hang"}.items())
        self.addCleanup(server.close)
        server.process.kill()
        server.process.wait()
        config = server.folder / "store" / "tiny" / "model-config.yaml"
        config.write_text(config.read_text().replace("startupTimeout: 60", "startupTimeout: 1"))
        for how in ("hang", "garbage"):
            with self.subTest(how=how):
                code, _, said = run_penstock("serve", "--models", f"tiny={config.parent}", "--port", "0", *FREE_PORTS, cwd=server.folder,
                                             environment={"PENSTOCK_WORKER": FAKE_WORKER, "FAKE_WORKER_LOAD": how}.items())
                self.assertEqual(code, 1)
                self.assertIn("startupTimeout", said)


class CommandLineTest(unittest.TestCase):
    def test_help_and_wrong_usage(self):
        code, text, _ = run_penstock("--help")
        self.assertEqual(code, 0)
        for command in ("serve", "generate"):
            self.assertIn(command, text)
        for wrong in ((), ("fly",), ("serve", "--prot", "1"), ("generate", "--model", "x")):
            with self.subTest(wrong=wrong):
                self.assertEqual(run_penstock(*wrong)[0], 2)

    def test_generate_without_a_server_says_what_to_type(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % free.getsockname()[1]
        code, _, said = run_penstock("generate", "--address", address, "--model", "tiny", "--prompt", "x")
        self.assertEqual(code, 1)
        self.assertIn(address, said)
        self.assertIn("penstock serve", said)


class GenerateCommandTest(ServerTest):
    environment = {"FAKE_WORKER_STEP_MS": "10"}.items()

    def generate(self, *arguments):
        return run_penstock("generate", "--address", self.server.address, "--model", "tiny", *arguments)

    def test_the_text_goes_to_stdout_and_the_summary_to_stderr(self):
        message = request(prompt="a b c", max_tokens=7, temperature=0)
        expected = "".join(self.client.stream_text(message))
        code, text, said = self.generate("--prompt", "a b c", "--max-tokens", 7, "--temperature", 0)
        self.assertEqual(code, 0)
        self.assertEqual(text.rstrip("\n"), expected.rstrip("\n"))
        self.assertIn("tokens", said)

    def test_raw_prints_one_json_string_for_each_message(self):
        code, text, _ = self.generate("--prompt", "a b c", "--max-tokens", 7, "--temperature", 0, "--raw")
        self.assertEqual(code, 0)
        pieces = [json.loads(line) for line in text.splitlines()]
        self.assertEqual(pieces, self.client.stream_text(request(prompt="a b c", max_tokens=7, temperature=0)))

    def test_a_refused_request_ends_with_the_servers_message(self):
        code, _, said = self.generate("--prompt", "x", "--temperature", 9)
        self.assertEqual(code, 2)
        self.assertIn("temperature", said)

    def test_an_unknown_model_lists_the_known_ones(self):
        code, _, said = run_penstock("generate", "--address", self.server.address, "--model", "nope", "--prompt", "x")
        self.assertEqual(code, 2)
        self.assertIn("tiny", said)

    @unittest.skipUnless(FAKE_WORKER, "needs the fake worker's log")
    def test_ctrl_c_cancels_the_call(self):
        before = self.server.worker_log().count("cancelled after")
        process = subprocess.Popen([BIN / "penstock", "generate", "--address", self.server.address, "--model", "tiny", "--prompt", "a b",
                                    "--max-tokens", str(LONG)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process.stdout.read(4)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        self.assertEqual(process.returncode, 130)
        wait_until(lambda: self.server.worker_log().count("cancelled after") > before, 5, "the worker hears of Ctrl-C")


class ModelStoreTest(unittest.TestCase):
    def test_config_properties_names_the_store_and_the_models(self):
        server = Server(wait=False)
        self.addCleanup(server.close)
        server.process.kill()
        server.process.wait()
        make_model(server.folder / "store" / "extra")
        (server.folder / "config.properties").write_text(
            "model_store=store\nload_models=all\ngrpc_inference_port=0\ngrpc_management_port=0\n"
            "inference_address=http://127.0.0.1:0\nmanagement_address=http://127.0.0.1:0\nmetrics_address=http://127.0.0.1:0\njob_queue_size=7\n")
        environment = dict(os.environ, **({"PENSTOCK_WORKER": FAKE_WORKER} if FAKE_WORKER else {}))
        server.process.stdout.close()
        server.process = subprocess.Popen([BIN / "penstock", "serve", "--ts-config", "config.properties", "--log-dir", "logs"],
                                          stdout=subprocess.PIPE, stderr=server.stderr_file, env=environment, cwd=server.folder)
        server.stdout = ""
        server.wait_started()
        for model in ("tiny", "extra"):
            self.assertTrue(server.client.stream_text(request(model=model, prompt="a", max_tokens=2)))
        server.terminate()
        self.assertEqual(server.wait_ended(), 0)
