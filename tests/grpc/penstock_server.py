"""Starts `penstock serve` on a model of two stages and talks to it as a foreign client would."""
import atexit
import importlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import grpc

HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(os.environ.get("PENSTOCK_BIN", "build/bin")).resolve()  # servers run in folders of their own
FAKE_WORKER = os.environ.get("PENSTOCK_FAKE_WORKER") and os.path.abspath(os.environ["PENSTOCK_FAKE_WORKER"])
TEST_MODEL = os.environ.get("PENSTOCK_TEST_MODEL")

# Every listener but the one under test takes any free port.
FREE_PORTS = ("--set", "grpc_management_port=0", "--set", "inference_address=http://127.0.0.1:0",
              "--set", "management_address=http://127.0.0.1:0", "--set", "metrics_address=http://127.0.0.1:0")

# The longest generation that is asked for. A real model may allow less; then what it allows is served.
LONG = int(os.environ.get("PENSTOCK_TEST_LONG_TOKENS", "3000" if FAKE_WORKER else "200"))

MANAGEMENT = "/org.pytorch.serve.grpc.management.ManagementAPIsService/"
INFERENCE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"


def load_messages():
    """The message classes of inference_client.proto, made now by protoc."""
    folder = tempfile.mkdtemp(prefix="penstock-proto-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run(["protoc", f"--python_out={folder}", f"-I{HERE}", "inference_client.proto"], check=True)
    sys.path.insert(0, folder)
    return importlib.import_module("inference_client_pb2")


wire = load_messages()


def request(model="tiny", version="", **data):
    """A PredictionsRequest. text= is sent as it is; other arguments make the JSON object."""
    value = data["text"] if "text" in data else json.dumps(data)
    return wire.PredictionsRequest(model_name=model, model_version=version,
                                   input={"data": value if isinstance(value, bytes) else value.encode()})


class Client:
    """Calls by method path; no generated service stubs."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)])

    def _method(self, kind, path, message):
        return getattr(self.channel, kind)(path, request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
                                           response_deserializer=message.FromString)

    def stream(self, message, timeout=20):
        return self._method("unary_stream", INFERENCE + "StreamPredictions", wire.PredictionResponse)(message, timeout=timeout)

    def stream_text(self, message, timeout=20):
        return [m.prediction.decode() for m in self.stream(message, timeout)]

    def predict(self, message, timeout=20):
        return self._method("unary_unary", INFERENCE + "Predictions", wire.PredictionResponse)(message, timeout=timeout)

    def stream2(self, messages, timeout=20):
        return self._method("stream_stream", INFERENCE + "StreamPredictions2", wire.PredictionResponse)(iter(messages), timeout=timeout)

    def ping(self):
        return self._method("unary_unary", INFERENCE + "Ping", wire.TorchServeHealthResponse)(wire.Empty(), timeout=10).health

    def health(self, service=""):
        call = self._method("unary_unary", "/grpc.health.v1.Health/Check", wire.HealthCheckResponse)
        return call(wire.HealthCheckRequest(service=service), timeout=10).status

    def watch(self, service="", timeout=20):
        return self._method("unary_stream", "/grpc.health.v1.Health/Watch", wire.HealthCheckResponse)(
            wire.HealthCheckRequest(service=service), timeout=timeout)

    def reflect(self, message, version="v1alpha"):
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        call = self._method("stream_stream", path, wire.ReflectionResponse)
        return next(call(iter([message]), timeout=10))

    def manage(self, method, message, timeout=60):
        """One call of the management API: its sentence or JSON."""
        return self._method("unary_unary", MANAGEMENT + method, wire.ManagementResponse)(message, timeout=timeout).msg

    def close(self):
        self.channel.close()


def make_model(folder, config="", stages=2, version=None, device="cpu"):
    """A model folder of pipeline stages: the real model's files by link, or a config.json for the fake worker, and a model.pt in case that
    `config` says "handler: torchscript", which the fake worker plays."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    if TEST_MODEL and not FAKE_WORKER:
        for file in pathlib.Path(TEST_MODEL).resolve().iterdir():
            if file.name != "model-config.yaml":
                (folder / file.name).symlink_to(file)
    else:
        (folder / "config.json").write_text("{}")
        (folder / "model.pt").write_text("")
    (folder / "model-config.yaml").write_text(
        f"minWorkers: 1\ndeviceType: {device}\nparallelType: pp\nparallelLevel: {stages}\nstartupTimeout: 60\n" + config)
    if version:  # as TorchServe's archiver writes it with --archive-format no-archive
        (folder / "MAR-INF").mkdir()
        (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(
            {"runtime": "python", "model": {"modelName": folder.name, "modelVersion": version, "configFile": "model-config.yaml"}}))
    return folder


class Server:
    """`penstock serve`, from its start to its end."""

    def __init__(self, config="", models=("tiny",), arguments=(), environment=(), wait=True, port=0, stages=2, store=(), device="cpu"):
        """models: served from the start. store: (name, version) of folders in a model store, from which models can be registered."""
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-grpc-"))
        pairs = [f"{name}={make_model(self.folder / 'store' / name, config, stages, device=device)}" for name in models]
        loaded = ["--models", *(list(models) if store else pairs)] if models else []
        for name, version in store:
            make_model(self.folder / "store" / name, config, stages, version, device)
        if store:
            loaded += ["--model-store", self.folder / "store", "--enable-model-api"]
        self.environment = dict(os.environ, **dict(environment))
        if FAKE_WORKER:
            self.environment["PENSTOCK_WORKER"] = FAKE_WORKER
        self.stderr_file = open(self.folder / "stderr", "w+")
        self.process = subprocess.Popen(
            [BIN / "penstock", "serve", *loaded, "--port", str(port), *FREE_PORTS, "--log-dir", self.folder / "logs", *arguments],
            stdout=subprocess.PIPE, stderr=self.stderr_file, env=self.environment, cwd=self.folder)
        self.stdout = ""
        self.address = None
        self.client = None
        if wait:
            self.wait_started()

    def wait_started(self, seconds=90):
        end = time.monotonic() + seconds
        while "stop " not in self.stdout:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 65536).decode() if ready else ""
            if not chunk:
                self.close()
                raise AssertionError(f"the server has not started; it said:\n{self.stdout}\n{self.stderr}")
            self.stdout += chunk
        self.address = re.search(r"listens on\s+(\S+)", self.stdout).group(1)
        self.client = Client(self.address)
        self.http_address, self.http_management_address = (
            found.removeprefix("http://") for found in re.findall(r"HTTP\s+(\S+)", self.stdout))
        metrics = re.search(r"metrics\s+http://([^/\s]+)", self.stdout)
        self.metrics_address = metrics.group(1) if metrics else None
        self.management_address = re.search(r"management\s+(\S+)", self.stdout).group(1)

    @property
    def stderr(self):
        return (self.folder / "stderr").read_text()

    def new_client(self):
        """A connection of its own."""
        return Client(self.address)

    def ranks(self):
        """Process ids of the worker ranks, by rank: of one group, when there are several."""
        return {rank: pid for pid, rank in self.worker_pids().items()}

    def worker_pids(self):
        """The ranks of all worker processes, by process id."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                environment = (entry / "environ").read_bytes().split(b"\0")
            except (OSError, IndexError):
                continue
            if parent == self.process.pid:
                found.update({int(entry.name): int(v[5:]) for v in environment if v.startswith(b"RANK=")})
        return found

    def worker_log(self, rank=0, group="tiny-0"):
        return (self.folder / "logs" / group / f"rank-{rank}.log").read_text()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait_ended(self, seconds=40):
        return self.process.wait(timeout=seconds)

    def close(self):
        if self.client:
            self.client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.stderr_file.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def run_penstock(*arguments, environment=(), timeout=30, cwd=None):
    """A command that ends by itself: (exit code, stdout, stderr)."""
    done = subprocess.run([BIN / "penstock", *map(str, arguments)], capture_output=True, text=True, timeout=timeout, cwd=cwd,
                          env=dict(os.environ, **dict(environment)))
    return done.returncode, done.stdout, done.stderr


def wait_until(condition, seconds=15, what="the condition"):
    """What the condition gives when it holds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)
    return found


class ServerTest(unittest.TestCase):
    """One server for all tests of the class."""

    config = ""
    environment = ()
    models = ("tiny",)
    arguments = ()
    store = ()
    stages = 2

    @classmethod
    def setUpClass(cls):
        cls.server = Server(cls.config, cls.models, cls.arguments, cls.environment, stages=cls.stages, store=cls.store)
        cls.addClassCleanup(cls.server.close)  # also when what follows fails
        cls.client = cls.server.client

    def assert_fails(self, code, call, *words):
        """The call must end with this status, and its message must contain the words."""
        with self.assertRaises(grpc.RpcError) as raised:
            result = call()
            if hasattr(result, "__iter__"):
                list(result)
        self.assertEqual(raised.exception.code(), code, raised.exception.details())
        for word in words:
            self.assertIn(word, raised.exception.details())
        return raised.exception.details()


class ManagementServerTest(ServerTest):
    """Base: a server with a model store and the client of its management port."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.manager = Client(cls.server.management_address)
        cls.addClassCleanup(cls.manager.close)

    def manage(self, method, message, **options):
        return self.manager.manage(method, message, **options)

    def register(self, url, name="", workers=1, synchronous=True, **fields):
        return self.manage("RegisterModel", wire.RegisterModelRequest(url=url, model_name=name, initial_workers=workers,
                                                                      synchronous=synchronous, **fields))

    def scale(self, name, workers, version="", synchronous=True, **fields):
        return self.manage("ScaleWorker", wire.ScaleWorkerRequest(model_name=name, model_version=version, min_worker=workers,
                                                                  synchronous=synchronous, **fields))

    def unregister(self, name, version=""):
        return self.manage("UnregisterModel", wire.ModelRequest(model_name=name, model_version=version))

    def describe(self, name, version="", **fields):
        return json.loads(self.manage("DescribeModel", wire.ModelRequest(model_name=name, model_version=version, **fields)))

    def listed(self, **fields):
        return json.loads(self.manage("ListModels", wire.ListModelsRequest(**fields)))

    def predict(self, name, version=""):
        return self.client.predict(request(model=name, version=version, prompt="a b", max_tokens=2)).prediction
