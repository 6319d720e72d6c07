"""Clients that cancel, run out of time and vanish; workers that are killed; models that come, go and are scaled: all at once, for so many seconds.

    PENSTOCK_BIN=build/release/bin PENSTOCK_FAKE_WORKER=build/release/tests/grpc/fake_worker python3 tests/grpc/soak.py 600

The fake worker repeats the words of its prompt, so each answer, also the beginning of one that was cut short, is known beforehand. At the end nothing
may have been answered wrongly, no request may be stuck, all devices must be free, and the front door may not have grown.
"""
import collections
import http.client
import json
import os
import random
import signal
import sys
import threading
import time

import grpc

from penstock_server import INFERENCE, Client, Server, request, wait_until, wire

CLIENTS = 12
STUCK_S = 45  # no request may take so long: its worker's load and several restarts are over long before
CONFIG = ("maxWorkers: 3\nscaleUpAfterMSec: 300\nscaleDownAfterMSec: 1500\njobQueueSize: 30\nresponseTimeout: 20\nmaxRetryTimeoutInSec: 86400\n"
          "handler:\n  max_concurrent: 3\n")
DEVICES, STAGES = 8, 2


def expected(words, count):
    return "".join(words[i % len(words)] + " " for i in range(count))


class Wrong(Exception):
    pass


class Soak:
    def __init__(self, seconds, seed):
        self.seconds, self.seed = seconds, seed
        self.counts, self.wrong = collections.Counter(), []
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.server = Server(config=CONFIG, models=("tiny",), store=(("extra", "1.0"),), stages=STAGES, device="gpu",
                             environment={"FAKE_WORKER_STEP_MS": "5", "PENSTOCK_TEST_DEVICES": str(DEVICES)}.items())
        self.manager = Client(self.server.management_address)

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    # What one client may do. `words` and `count` make the whole answer known.

    def stream(self, client, rng, model, words, count, timeout=STUCK_S, keep=None):
        """Reads the stream, or its first `keep` pieces and then cancels."""
        priority = rng.choice((None, "low", "normal", "high"))
        call = client.channel.unary_stream(INFERENCE + "StreamPredictions", request_serializer=lambda m: m.SerializeToString(),
                                           response_deserializer=wire.PredictionResponse.FromString)(
            request(model=model, prompt=" ".join(words), max_tokens=count), timeout=timeout,
            metadata=[("x-priority", priority)] if priority else None)
        text, pieces = "", 0
        try:
            for message in call:
                text, pieces = text + message.prediction.decode(), pieces + 1
                if not expected(words, count).startswith(text):
                    raise Wrong(f"{text[-80:]!r} of {words}")
                if pieces == keep:
                    call.cancel()
                    return "cancelled"
        except grpc.RpcError as failure:
            return failure.code().name
        if text != expected(words, count):
            raise Wrong(f"the stream ended early, at {text[-80:]!r} of {words} x {count}")
        return "OK"

    def predict(self, client, _, model, words, count):
        try:
            text = client.predict(request(model=model, prompt=" ".join(words), max_tokens=count), timeout=STUCK_S).prediction.decode()
        except grpc.RpcError as failure:
            return failure.code().name
        if text != expected(words, count):
            raise Wrong(f"{text[-80:]!r} is not {words} x {count}")
        return "OK"

    def over_http(self, _, rng, model, words, count):
        connection = http.client.HTTPConnection(self.server.http_address, timeout=STUCK_S)
        streams, leaves = rng.random() < 0.5, rng.random() < 0.2
        try:
            connection.request("POST", f"/predictions/{model}", json.dumps({"prompt": " ".join(words), "max_tokens": count, "stream": streams}))
            if leaves:
                return "left"
            response = connection.getresponse()
            text = response.read().decode()
        except TimeoutError:
            raise Wrong(f"no answer over HTTP within {STUCK_S} s") from None
        except (OSError, http.client.HTTPException):
            return "broken"  # counted; only the front door's end may break connections, and that is checked for
        finally:
            connection.close()
        if response.status != 200:
            return str(response.status)
        if text == expected(words, count):
            return "OK"
        begin, _, rest = text.partition("{")  # an error in mid-stream is the last chunk
        if streams and rest and expected(words, count).startswith(begin) and "code" in json.loads("{" + rest):
            return "failed in mid-stream"
        raise Wrong(f"over HTTP: {text[-80:]!r} is not {words} x {count}")

    def client(self, number):
        rng = random.Random(self.seed * 1000 + number)
        client = self.server.new_client()
        while not self.stop.is_set():
            words = [f"c{number}", *(f"w{rng.randrange(1000)}" for _ in range(rng.randrange(1, 6)))]
            model, count = rng.choice(("tiny", "tiny", "tiny", "extra")), rng.choice((1, 5, 20, 100))
            what = rng.choice(("stream", "predict", "http", "cancel", "deadline", "vanish"))
            begin = time.monotonic()
            try:
                if what == "predict":
                    ended = self.predict(client, rng, model, words, count)
                elif what == "http":
                    ended = self.over_http(client, rng, model, words, count)
                elif what == "cancel":
                    ended = self.stream(client, rng, model, words, 400, keep=rng.randrange(1, 20))
                elif what == "deadline":
                    ended = self.stream(client, rng, model, words, 400, timeout=rng.uniform(0.005, 0.5))
                else:
                    ended = self.stream(client, rng, model, words, count)
                    if what == "vanish":
                        client.close()
                        client = self.server.new_client()
                allowed = {"OK", "cancelled", "left", "failed in mid-stream", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "429", "503"}
                if model == "extra":  # it comes and goes
                    allowed |= {"NOT_FOUND", "404"}
                if what == "deadline":
                    allowed.add("DEADLINE_EXCEEDED")
                if ended not in allowed:
                    raise Wrong(f"{what} of {model} ended with {ended} after {time.monotonic() - begin:.1f} s")
                self.count(f"{what}: {ended}")
            except Wrong as wrong:
                with self.lock:
                    self.wrong.append(str(wrong))
        client.close()

    def manage(self, method, message):
        try:
            self.manager.manage(method, message, timeout=STUCK_S)
            self.count(f"{method}: OK")
        except grpc.RpcError as failure:
            self.count(f"{method}: {failure.code().name}")
            if failure.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                with self.lock:
                    self.wrong.append(f"{method} took more than {STUCK_S} s")

    def chaos(self):
        rng = random.Random(self.seed)
        while not self.stop.wait(rng.uniform(0.1, 0.8)):
            what = rng.randrange(6)
            if what < 2:
                pids = list(self.server.worker_pids())
                if pids:
                    os.kill(rng.choice(pids), signal.SIGKILL)
                    self.count("killed workers")
            elif what == 2:
                low = rng.randrange(1, 3)
                self.manage("ScaleWorker", wire.ScaleWorkerRequest(model_name="tiny", min_worker=low, max_worker=rng.randrange(low, 4), timeout=1,
                                                                   synchronous=rng.random() < 0.3))
            elif what < 5:
                self.manage("RegisterModel", wire.RegisterModelRequest(url="extra", initial_workers=1, synchronous=rng.random() < 0.5))
            else:
                self.manage("UnregisterModel", wire.ModelRequest(model_name="extra"))

    def figures(self):
        """Resident memory in MB, open files and threads of the front door."""
        pid = self.server.process.pid
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["VmRSS"].split()[0]) / 1024, len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"])

    def quiet_figures(self):
        """The same with one worker group and no request."""
        self.manage("UnregisterModel", wire.ModelRequest(model_name="extra"))
        self.manage("ScaleWorker", wire.ScaleWorkerRequest(model_name="tiny", min_worker=1, max_worker=1, timeout=1, synchronous=True))
        wait_until(lambda: len(self.server.worker_pids()) == STAGES, 30, "one worker group is left")
        time.sleep(1.5)  # gRPC closes connections of clients that are gone a moment later
        return self.figures()

    def run_phase(self, seconds):
        self.stop.clear()
        threads = [threading.Thread(target=self.client, args=(i,)) for i in range(CLIENTS)] + [threading.Thread(target=self.chaos)]
        for thread in threads:
            thread.start()
        self.stop.wait(seconds)
        self.stop.set()
        for thread in threads:
            thread.join(2 * STUCK_S)
            if thread.is_alive():
                raise AssertionError("a request is stuck")
        if self.server.process.poll() is not None:
            raise AssertionError(f"the front door has ended with {self.server.process.returncode}:\n{self.server.stderr[-4000:]}")

    def run(self, say=print):
        """The checks; what has happened, as lines."""
        warm_up = max(4, self.seconds / 5)
        self.run_phase(warm_up)
        before = self.quiet_figures()
        self.run_phase(self.seconds - warm_up)
        after = self.quiet_figures()
        for what, number in sorted(self.counts.items()):
            say(f"  {what:<40} {number:>8}")
        for name, first, last in zip(("memory, MB", "open files", "threads"), before, after):
            say(f"  {name:<40} {first:>8.0f} -> {last:.0f}")
        assert not self.wrong, f"{len(self.wrong)} wrong answers: {self.wrong[:5]}"
        assert after[1] <= before[1] + 5, f"open files grew from {before[1]} to {after[1]}"
        assert after[2] <= before[2] + 5, f"threads grew from {before[2]} to {after[2]}"
        assert after[0] <= before[0] * 1.3 + 20, f"memory grew from {before[0]:.0f} to {after[0]:.0f} MB"
        # Groups on all devices can only be had when none is lost.
        groups = DEVICES // STAGES
        self.manager.manage("ScaleWorker", wire.ScaleWorkerRequest(model_name="tiny", min_worker=groups, synchronous=True), timeout=60)
        assert len(self.server.worker_pids()) == DEVICES
        return self.counts

    def close(self):
        self.stop.set()
        self.manager.close()
        self.server.close()


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    print(f"soak: {seconds} s, {CLIENTS} clients, seed {seed}", flush=True)
    soak = Soak(seconds, seed)
    try:
        soak.run()
    finally:
        soak.close()
    print("soak: good")


if __name__ == "__main__":
    main()
