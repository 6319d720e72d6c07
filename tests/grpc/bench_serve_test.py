"""`penstock bench serve` against a server: every request, message and token is counted; no time is."""
import json
import signal
import subprocess
import unittest
import urllib.request

from penstock_server import BIN, FAKE_WORKER, LONG, ServerTest, request, run_penstock, wait_until


class BenchServeTest(ServerTest):
    environment = {"FAKE_WORKER_STEP_MS": "1"}.items()

    def bench(self, *arguments, model="tiny"):
        return run_penstock("bench", "serve", "--model", model, "--address", self.server.address, *arguments, timeout=60, cwd=self.server.folder)

    def measured(self, *arguments):
        code, text, said = self.bench("--json", *arguments)
        self.assertEqual(code, 0, said)
        return json.loads(text), said

    def test_every_request_and_token_is_counted(self):
        result, said = self.measured("--requests", 20, "--concurrency", 3, "--prompt-tokens", 5, "--max-tokens", 7, "--ignore-eos")
        self.assertEqual((result["completed"], result["failed"], result["errors"]), (20, 0, {}))
        self.assertEqual((result["total_input_tokens"], result["total_output_tokens"]), (100, 140))
        self.assertLessEqual(result["max_concurrent_requests"], 3)
        self.assertIn("20 of 20 requests", said)
        for name in ("ttft", "tpot", "itl", "e2el"):
            for figure in ("mean", "median", "std", "p90", "p99"):
                self.assertGreaterEqual(result[f"{figure}_{name}_ms"], 0)
        self.assertLessEqual(result["median_ttft_ms"], result["median_e2el_ms"])

    @unittest.skipUnless(FAKE_WORKER, "needs the fake worker's log")
    def test_requests_to_warm_up_are_sent_and_not_measured(self):
        before = self.server.worker_log().count("finished after 2 steps")
        result, said = self.measured("--requests", 4, "--warm-up", 3, "--max-tokens", 2, "--quiet")
        self.assertEqual((result["completed"], result["total_output_tokens"]), (4, 8))
        wait_until(lambda: self.server.worker_log().count("finished after 2 steps") == before + 7, 10, "7 requests have run")
        self.assertEqual(said, "")

    def test_at_a_rate_with_goals(self):
        result, _ = self.measured("--requests", 10, "--rate", 200, "--connections", 2, "--max-tokens", 2, "--prompt-tokens", 3, "--ignore-eos", "--goodput", "ttft:60000",
                                  "--goodput", "e2el:60000")
        self.assertEqual((result["completed"], result["total_output_tokens"]), (10, 20))
        self.assertAlmostEqual(result["request_goodput"], result["request_throughput"])

    def test_prompts_of_a_file_and_the_table(self):
        (self.server.folder / "prompts.txt").write_text('one two three\n{"prompt": "four", "max_tokens": 2}\n')
        code, text, said = self.bench("--requests", 4, "--prompts", "prompts.txt", "--max-tokens", 5, "--ignore-eos", "--percentiles", "50,99.9")
        self.assertEqual(code, 0, said)
        self.assertIn("4 completed, 0 failed", text)
        if FAKE_WORKER:
            self.assertIn("tokens             8 in, 14 out", text)
        for word in ("ttft", "tpot", "itl", "e2el", "p50", "p99.9", "requests/s"):
            self.assertIn(word, text)

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that fails on request")
    def test_failures_are_counted_by_name_and_all_of_them_are_exit_code_1(self):
        (self.server.folder / "mixed.txt").write_text("[error] x\nfine\n[hang] x\n")
        result, _ = self.measured("--requests", 6, "--prompts", "mixed.txt", "--max-tokens", 2, "--timeout", 4)
        self.assertEqual((result["completed"], result["failed"], result["total_output_tokens"]), (2, 4, 4))
        self.assertEqual({name: failure["count"] for name, failure in result["errors"].items()}, {"internal": 2, "deadline exceeded": 2})
        self.assertIn("told to fail", result["errors"]["internal"]["example"])
        code, text, _ = self.bench("--requests", 2, model="huge")
        self.assertEqual(code, 1)
        self.assertIn("2 x not found", text)

    def test_wrong_options_are_named(self):
        for arguments, word in ((("--rate", -1), "--rate"), (("--goodput", "speed:3"), "speed:3"), (("--prompts", "/no/such/file"), "/no/such/file"), (("--requests", 0), "--requests")):
            with self.subTest(arguments=arguments):
                code, _, said = self.bench(*arguments)
                self.assertEqual(code, 2, said)
                self.assertIn(word, said)

    def test_without_a_server_it_says_what_to_type(self):
        code, _, said = run_penstock("bench", "serve", "--model", "tiny", "--address", "127.0.0.1:1")
        self.assertEqual(code, 1)
        self.assertIn("penstock serve", said)

    @unittest.skipUnless(FAKE_WORKER, "needs the fake worker's log")
    def test_ctrl_c_ends_what_runs_and_tells_what_was_measured(self):
        before = self.server.worker_log().count("cancelled after")
        process = subprocess.Popen([BIN / "penstock", "bench", "serve", "--model", "tiny", "--address", self.server.address, "--requests", "3", "--max-tokens", str(LONG), "--quiet"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running = 'penstock_requests_running{model_name="tiny",model_version="1.0",} 3.0'
        wait_until(lambda: running in self.metrics(), 15, "three requests run")
        process.send_signal(signal.SIGINT)
        text, said = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 130, said)
        self.assertIn("3 x cancelled", text)
        wait_until(lambda: self.server.worker_log().count("cancelled after") == before + 3, 10, "the worker hears of all three")

    def metrics(self):
        with urllib.request.urlopen(f"http://{self.server.metrics_address}/metrics", timeout=10) as reply:
            return reply.read().decode()


@unittest.skipUnless(FAKE_WORKER, "needs a worker of which the speed is known")
class CrowdServerTest(ServerTest):
    config = "jobQueueSize: 100\nhandler:\n  max_concurrent: 8\n"

    def test_ten_thousand_requests_at_once_are_answered_or_refused_and_the_server_goes_on(self):
        code, text, said = run_penstock("bench", "serve", "--model", "tiny", "--address", self.server.address, "--requests", 10000, "--connections", 4, "--prompt-tokens", 2,
                                        "--max-tokens", 4, "--json", "--quiet", timeout=150)
        self.assertEqual(code, 0, said)
        result = json.loads(text)
        self.assertEqual(set(result["errors"]), {"resource exhausted"})
        self.assertIn("queue is full", result["errors"]["resource exhausted"]["example"])
        self.assertEqual(result["completed"] + result["failed"], 10000)
        self.assertGreaterEqual(result["completed"], 108, "those that ran, and those that waited")
        self.assertEqual(result["total_output_tokens"], 4 * result["completed"])
        self.assertEqual(self.client.stream_text(request(prompt="a b", max_tokens=2)), ["a ", "b "])
