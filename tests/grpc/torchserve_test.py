"""`torchserve` as its users' scripts call it: start, read stdout until the line that they wait for, use it, stop."""
import http.client
import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import unittest

from penstock_server import BIN, FAKE_WORKER, FREE_PORTS, Client, make_model, request, wait_until

STARTED = "Model server started."


class TorchServe:
    """A folder in which `torchserve` is called, with a temporary folder of its own for the pid file."""

    def __init__(self, models=("tiny",), config="", settings=()):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-torchserve-"))
        self.store = self.folder / "model_store"
        self.store.mkdir()
        for name in models:
            make_model(self.store / name, config)
        (self.folder / "tmp").mkdir()
        self.config = self.folder / "config.properties"
        free = [pair for pair in FREE_PORTS if pair != "--set"]
        self.config.write_text("\n".join([*free, "grpc_inference_port=0", "disable_token_authorization=true", *settings]) + "\n")
        self.environment = dict(os.environ, TMPDIR=str(self.folder / "tmp"), PYTHONUNBUFFERED="1")
        self.environment.pop("LOG_LOCATION", None)
        if FAKE_WORKER:
            self.environment["PENSTOCK_WORKER"] = FAKE_WORKER
        self.pid_file = self.folder / "tmp" / ".model_server.pid"
        self.lines = queue.Queue()
        self.output = ""
        self.process = None

    def run(self, *arguments, timeout=90):
        """A call that does not start a server: (exit code, stdout)."""
        done = subprocess.run([BIN / "torchserve", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=timeout, cwd=self.folder, env=self.environment)
        return done.returncode, done.stdout

    def start(self, *arguments):
        """As TorchServe's tests do it: a reader takes each line of stdout, for as long as there are any."""
        self.process = subprocess.Popen([BIN / "torchserve", "--start", "--model-store", self.store, *arguments], stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, cwd=self.folder, env=self.environment)
        self.lines, self.output = queue.Queue(), ""
        threading.Thread(target=self._read, args=[self.process.stdout, self.lines], daemon=True).start()

    def _read(self, stdout, lines):
        for line in stdout:
            self.output += line
            lines.put(line)
        lines.put("")
        stdout.close()

    def wait_for(self, word, seconds=60):
        while True:
            line = self.lines.get(timeout=seconds)
            if not line:
                raise AssertionError(f"'{word}' did not come; the output was:\n{self.output}")
            if word in line:
                return line

    def wait_started(self):
        self.wait_for(STARTED)
        self.wait_for("stop ")
        self.http, self.http_management = re.findall(r"HTTP\s+http://(\S+)", self.output)[-2:]
        self.metrics = re.findall(r"metrics\s+http://([^/\s]+)", self.output)[-1]
        self.grpc = re.findall(r"listens on\s+(\S+)", self.output)[-1]
        self.grpc_management = re.findall(r"  management\s+(\S+)", self.output)[-1]

    @property
    def pid(self):
        return int(self.pid_file.read_text().split()[0])

    def call(self, address, method, target, body=None):
        connection = http.client.HTTPConnection(address, timeout=60)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def close(self):
        if self.pid_file.exists():
            self.run("--stop", "--foreground")
        if self.process:
            self.process.wait(timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)


class TorchServeTest(unittest.TestCase):
    def make(self, **options):
        server = TorchServe(**options)
        self.addCleanup(server.close)
        return server

    def test_a_script_starts_it_waits_for_the_line_uses_it_and_stops_it(self):
        server = self.make()
        server.start("--ts-config", str(server.config), "--models", "tiny", "--ncs", "--disable-token-auth", "--enable-model-api")
        server.wait_started()
        self.assertEqual(server.process.wait(timeout=20), 0, "the command itself ends; the server goes on")
        os.kill(server.pid, 0)
        status, text = server.call(server.http, "POST", "/predictions/tiny", '{"prompt": "a b", "max_tokens": 3}')
        self.assertEqual((status, text), (200, "a b a ") if FAKE_WORKER else (200, text))
        self.assertEqual(server.call(server.http, "GET", "/ping")[0], 200)
        status, text = server.call(server.http_management, "POST", "/models?url=tiny&model_name=again&initial_workers=1")
        self.assertEqual(status, 200, text)
        client = Client(server.grpc)
        self.assertTrue(client.predict(request(model="again", prompt="a b", max_tokens=3)).prediction)
        client.close()
        self.assertEqual(server.call(server.http_management, "DELETE", "/models/again")[0], 200)
        code, output = server.run("--stop", "--foreground")
        self.assertEqual((code, output), (0, "TorchServe has stopped.\n"))
        self.assertFalse(server.pid_file.exists())
        server.wait_for("stopped")

    def test_a_server_without_models_starts_and_refuses_to_register_any(self):
        server = self.make(models=())
        server.start("--ts-config", str(server.config))
        server.wait_started()
        status, text = server.call(server.http_management, "POST", "/models?url=tiny")
        self.assertEqual(status, 405, text)
        self.assertEqual(json.loads(server.call(server.http_management, "GET", "/models")[1]), {"models": []})

    def test_a_second_start_is_refused_and_a_start_after_stop_is_not(self):
        server = self.make(models=())
        server.start("--ts-config", str(server.config))
        server.wait_started()
        first = server.pid
        code, output = server.run("--start", "--model-store", str(server.store))
        self.assertEqual(code, 1)
        self.assertIn("already running, please use torchserve --stop", output)
        self.assertEqual(server.pid, first)
        server.run("--stop")
        server.start("--ts-config", str(server.config))
        server.wait_started()
        self.assertNotEqual(server.pid, first)

    def test_a_pid_file_of_a_server_that_was_killed_is_no_obstacle(self):
        server = self.make(models=())
        server.pid_file.write_text(f"{os.getpid()}\n")  # a number that is another program's by now
        self.assertEqual(server.run("--stop"), (0, "TorchServe already stopped.\n"))
        self.assertFalse(server.pid_file.exists())
        self.assertEqual(server.run("--stop"), (0, "TorchServe is not currently running.\n"))
        server.pid_file.write_text(f"{os.getpid()}\n")
        server.start("--ts-config", str(server.config))
        server.wait_for("Removing orphan pid file.")
        server.wait_started()
        self.assertNotEqual(server.pid, os.getpid())

    def test_foreground_serves_until_it_is_stopped(self):
        server = self.make(models=())
        server.start("--ts-config", str(server.config), "--foreground")
        server.wait_started()
        self.assertIsNone(server.process.poll())
        self.assertEqual(server.pid, server.process.pid)
        self.assertEqual(server.run("--stop", "--foreground")[1], "TorchServe has stopped.\n")
        self.assertEqual(server.process.wait(timeout=20), 0)

    def test_stop_lets_a_running_request_end(self):
        server = self.make()
        server.environment["FAKE_WORKER_STEP_MS"] = "20"
        server.start("--ts-config", str(server.config), "--models", "tiny")
        server.wait_started()
        client = Client(server.grpc)
        self.addCleanup(client.close)
        stream = client.stream(request(prompt="a b", max_tokens=150, ignore_eos=True), timeout=60)
        next(stream)
        stopping = threading.Thread(target=server.run, args=["--stop", "--foreground"])
        stopping.start()
        rest = list(stream)  # a token of a real model may end no character
        self.assertEqual(dict(stream.trailing_metadata())["penstock-completion-tokens"], "150")
        self.assertGreater(len(rest), 0)
        stopping.join()

    def test_the_server_leaves_its_starters_terminal(self):
        server = self.make(models=())
        server.start("--ts-config", str(server.config))
        server.wait_started()
        self.assertEqual(os.getsid(server.pid), server.pid, "a session of its own")
        self.assertEqual(os.readlink(f"/proc/{server.pid}/fd/0"), "/dev/null")

    def test_what_is_missing_or_wrong_is_said_by_the_command_itself(self):
        server = self.make(models=())
        for arguments, code, words in (
                ((), 1, "Missing mandatory parameter --model-store"),
                (("--model-store", "nowhere"), 1, "--model-store directory not found: nowhere"),
                (("--model-store", str(server.store), "--ts-config", "no.properties"), 1, "--ts-config file not found: no.properties"),
                (("--start", "--stop"), 2, "excludes"),
                (("--bogus",), 2, "--bogus")):
            with self.subTest(arguments=arguments):
                found, output = server.run(*arguments)
                self.assertEqual(found, code, output)
                self.assertIn(words, output)
                self.assertFalse(server.pid_file.exists())

    def test_a_configuration_that_is_wrong_or_a_port_that_is_taken_ends_the_command_with_an_error(self):
        server = self.make(models=())
        server.config.write_text("grpc_inference_port=many\n")
        code, output = server.run("--model-store", str(server.store), "--ts-config", str(server.config))
        self.assertEqual(code, 1)
        self.assertIn("grpc_inference_port", output)
        server.start("--ts-config", str(self.config_of(server, "grpc_inference_port=0")))
        server.wait_started()
        other = self.make(models=())
        taken = server.grpc.rsplit(":", 1)[1]
        code, output = other.run("--model-store", str(other.store), "--ts-config", str(self.config_of(other, f"grpc_inference_port={taken}")))
        self.assertEqual(code, 1)
        self.assertIn("cannot listen on", output)
        self.assertFalse(other.pid_file.exists())

    @staticmethod
    def config_of(server, *settings):
        free = [pair for pair in FREE_PORTS if pair != "--set"]
        server.config.write_text("\n".join([*free, *settings]) + "\n")
        return server.config

    def test_flags_that_do_nothing_here_say_so(self):
        server = self.make(models=())
        server.start("--ts-config", str(server.config), "--log-config", "log4j2.xml", "--plugins-path", "x", "--workflow-store", "y",
                     "--cpp-log-config", "z")
        server.wait_started()
        for flag in ("--log-config", "--plugins-path", "--workflow-store", "--cpp-log-config"):
            self.assertRegex(server.output, f"{flag}: not (applicable|supported)")

    def test_version_and_help(self):
        server = self.make(models=())
        self.assertRegex(server.run("--version")[1], r"^TorchServe Version is \d+\.\d+\.\d+ ")
        code, output = server.run("-h")
        self.assertEqual(code, 0)
        for flag in ("--start", "--stop", "--ts-config", "--no-config-snapshots", "--ncs", "--dt", "--ppath", "--enable-model-api"):
            self.assertIn(flag, output)


class TorchServeModelsTest(unittest.TestCase):
    def make(self, **options):
        server = TorchServe(**options)
        self.addCleanup(server.close)
        return server

    def test_several_models_stand_behind_one_flag_with_names_of_their_own(self):
        server = self.make(models=("tiny", "other"))
        server.start("--models", "one=tiny", "other", "--ts-config", str(server.config))
        server.wait_started()
        names = [model["modelName"] for model in json.loads(server.call(server.http_management, "GET", "/models")[1])["models"]]
        self.assertEqual(names, ["one", "other"])
        self.assertEqual(server.call(server.http, "POST", "/predictions/one", "a b")[0], 200)

    def test_the_flags_are_stronger_than_the_file_and_the_environments_file_is_stronger_than_the_flags_one(self):
        server = self.make(models=("tiny", "other"), settings=["load_models=other", "model_store=nowhere"])
        server.start("--models", "all", "--ts-config", str(server.config))
        server.wait_started()
        self.assertEqual(len(json.loads(server.call(server.http_management, "GET", "/models")[1])["models"]), 2)
        server.run("--stop", "--foreground")
        weaker = server.folder / "weaker.properties"
        weaker.write_text("load_models=tiny\n")
        server.environment["TS_CONFIG_FILE"] = str(server.config)
        server.start("--ts-config", str(weaker))
        server.wait_started()
        self.assertEqual([m["modelName"] for m in json.loads(server.call(server.http_management, "GET", "/models")[1])["models"]], ["other"])
        self.assertIn("TS_CONFIG_FILE names another file", server.output)

    def test_without_a_configuration_it_starts_from_its_last_snapshot(self):
        server = self.make(models=("tiny", "other"))
        server.start("--ts-config", str(server.config), "--models", "tiny", "--enable-model-api")
        server.wait_started()
        for method, target in (("POST", "/models?url=other&model_name=late&initial_workers=1&batch_size=3"), ("PUT", "/models/tiny?min_worker=2&synchronous=true")):
            status, text = server.call(server.http_management, method, target)
            self.assertEqual(status, 200, text)
        server.run("--stop", "--foreground")
        server.start()
        server.wait_started()
        described = {name: json.loads(server.call(server.http_management, "GET", f"/models/{name}")[1])[0] for name in ("tiny", "late")}
        self.assertEqual((described["tiny"]["minWorkers"], described["late"]["minWorkers"], described["late"]["batchSize"]), (2, 1, 3))
        for name in described:
            self.assertEqual(server.call(server.http, "POST", f"/predictions/{name}", "a b")[0], 200)
        server.run("--stop", "--foreground")
        server.start("--ts-config", str(server.config))
        server.wait_started()
        self.assertEqual(json.loads(server.call(server.http_management, "GET", "/models")[1]), {"models": []}, "a file that is given is stronger")

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that fails on request")
    def test_models_that_cannot_be_loaded_do_not_stop_the_server(self):
        server = self.make(config="maxRetryTimeoutInSec: 1\n")
        server.environment["FAKE_WORKER_LOAD"] = "fail"
        server.start("--models", "tiny", "absent", "--ts-config", str(server.config))
        server.wait_started()
        self.assertIn("model 'absent' is not served", server.output)
        wait_until(lambda: server.call(server.http, "GET", "/ping")[0] == 500, 30, "the failed model makes the server unhealthy")
        status, text = server.call(server.http, "POST", "/predictions/tiny", "a b")
        self.assertEqual(status, 503, text)
        self.assertIn("truncated", text)

    @unittest.skipUnless(FAKE_WORKER, "needs a worker that loads for ever")
    def test_it_says_that_it_has_started_while_models_load_and_their_requests_wait(self):
        server = self.make()
        server.environment["FAKE_WORKER_LOAD"] = "hang"
        server.start("--models", "tiny", "--ts-config", str(server.config))
        server.wait_started()
        self.assertEqual(server.call(server.http, "GET", "/ping")[0], 200)
        described = json.loads(server.call(server.http_management, "GET", "/models/tiny")[1])
        self.assertEqual(described[0]["workers"][0]["status"], "UNLOADING")

    def test_log_location_is_where_the_workers_write(self):
        server = self.make()
        server.environment["LOG_LOCATION"] = str(server.folder / "elsewhere")
        server.start("--models", "tiny", "--ts-config", str(server.config))
        server.wait_started()
        wait_until(lambda: list((server.folder / "elsewhere").glob("tiny-0/rank-*.log")), 20, "the workers' logs are there")
