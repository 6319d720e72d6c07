"""How the first rank of a serving group ends while requests run and new ones come: with its own exit code, and with every request told."""
import os
import pathlib
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "grpc"))
try:
    import grpc

    from penstock_server import BIN, TEST_MODEL, wait_until
except ImportError as absent:
    print(f"skipped: {absent} (python3-grpcio, python3-protobuf)")
    sys.exit(77)


def worker_messages():
    folder = tempfile.mkdtemp(prefix="penstock-proto-")
    try:
        subprocess.run(["protoc", f"--python_out={folder}", f"-I{HERE.parent.parent / 'proto'}", "worker.proto"], check=True)
        sys.path.insert(0, folder)
        import worker_pb2
        return worker_pb2
    finally:
        shutil.rmtree(folder)


wire = worker_messages()


class Worker:
    """The two ranks of a group, and the stream that a front door has to the first one."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-worker-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log = open(self.folder / "log", "w+")
        self.ranks = [subprocess.Popen(
            [BIN / "penstock-worker", "serve", "--model", TEST_MODEL, "--socket", self.folder / "socket", "--max-concurrent", "4", "--dtype", "fp32"],
            stderr=self.log, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2",
                                  "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}) for rank in range(2)]
        self.commands = queue.Queue()
        self.tokens = {}
        self.ends = {}
        self.outcome = None
        self.channel = grpc.insecure_channel(f"unix:{self.folder / 'socket'}", options=[("grpc.enable_http_proxy", 0)])
        grpc.channel_ready_future(self.channel).result(timeout=60)
        self.channel.unary_unary("/penstock.worker.v1.Worker/WaitReady", request_serializer=lambda m: m.SerializeToString(),
                                 response_deserializer=wire.WorkerInfo.FromString)(wire.WaitReadyRequest(), timeout=60)
        work = self.channel.stream_stream("/penstock.worker.v1.Worker/Work", request_serializer=lambda m: m.SerializeToString(),
                                          response_deserializer=wire.Events.FromString)
        self.reader = threading.Thread(target=self.read, args=(work(iter(self.commands.get, None), timeout=120),))
        self.reader.start()

    def generate(self, number):
        request = wire.GenerateRequest(prompt="The rank of", sampling=wire.Sampling(max_tokens=12, ignore_eos=True, top_p=1, repetition_penalty=1))
        self.commands.put(wire.Commands(commands=[wire.Command(id=number, generate=request)]))

    def read(self, call):
        try:
            for events in call:
                for event in events.events:
                    if event.HasField("end"):
                        self.ends[event.id] = event.end
                    else:
                        self.tokens[event.id] = self.tokens.get(event.id, 0) + 1
            self.outcome = grpc.StatusCode.OK
        except grpc.RpcError as failure:
            self.outcome = failure.code()

    def said(self):
        return (self.folder / "log").read_text()

    def close(self):
        for rank in self.ranks:
            rank.kill()
            rank.wait()
        self.commands.put(None)
        self.reader.join(60)
        self.channel.close()
        self.log.close()
        shutil.rmtree(self.folder)


@unittest.skipUnless(TEST_MODEL, "needs a model")
class WorkerEndTest(unittest.TestCase):
    def start(self):
        """A worker that generates texts one after the other, more than it can at once, until the test is over."""
        worker = Worker()
        over = threading.Event()

        def ask():
            number = 0
            while not over.is_set():
                number += 1
                worker.generate(number)
                over.wait(0.005)
        asker = threading.Thread(target=ask)
        asker.start()
        self.addCleanup(worker.close)
        self.addCleanup(asker.join)
        self.addCleanup(over.set)
        wait_until(lambda: len(worker.tokens) >= 4 and worker.ends, 60, "texts come")
        return worker

    def test_a_signal_ends_it_with_zero_and_ends_the_stream(self):
        worker = self.start()
        worker.ranks[0].send_signal(signal.SIGTERM)
        self.assertEqual([rank.wait(60) for rank in worker.ranks], [0, 0], worker.said()[-2000:])
        worker.reader.join(30)
        self.assertEqual(worker.outcome, grpc.StatusCode.UNAVAILABLE)
        self.assertLessEqual({end.code for end in worker.ends.values()}, {0, grpc.StatusCode.UNAVAILABLE.value[0]})

    def test_a_rank_that_is_lost_ends_the_first_one_with_its_reason(self):
        worker = self.start()
        worker.ranks[1].kill()
        code = worker.ranks[0].wait(90)
        self.assertGreater(code, 0, f"ended by a signal, or as if all was well: {worker.said()[-2000:]}")
        worker.reader.join(30)
        self.assertEqual(worker.outcome, grpc.StatusCode.UNAVAILABLE)
        self.assertTrue([end for end in worker.ends.values() if end.code == grpc.StatusCode.UNAVAILABLE.value[0]], "running texts are told")


if __name__ == "__main__":
    unittest.main(verbosity=2)
