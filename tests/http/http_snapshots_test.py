"""Snapshots: what is served is saved at every change, and a server starts from the last one."""
import json
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from http_case import Reply, call_http
from penstock_server import BIN, FAKE_WORKER, FREE_PORTS, make_model, run_penstock


class Run:
    """`penstock serve --snapshots` in a folder that stays from one run to the next."""

    def __init__(self, folder, *arguments, limit=None):
        self.folder = folder
        self.errors = open(folder / "stderr", "w+")
        grow = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
        self.process = subprocess.Popen(
            [BIN / "penstock", "serve", "--snapshots", "--log-dir", folder / "logs", *arguments], cwd=folder, stdout=subprocess.PIPE,
            stderr=self.errors, preexec_fn=grow, env=dict(os.environ, PENSTOCK_WORKER=FAKE_WORKER))
        said, end = "", time.monotonic() + 60
        while "stop " not in said:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 65536).decode() if ready else ""
            if not chunk:
                self.close()
                raise AssertionError(f"not started: {said}\n{(folder / 'stderr').read_text()}")
            said += chunk
        self.management = re.findall(r"HTTP\s+http://(\S+)", said)[1]

    def admin(self, method, target):
        return call_http(self.management, method, target)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=40)
        self.close()
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


@unittest.skipUnless(FAKE_WORKER, "a worker without a model loads faster; the rest of the path is the same")
class SnapshotsTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-snapshots-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        for name, version in (("one", "1.0"), ("two-v1", "1.0"), ("two-v2", "2.0")):
            make_model(self.folder / "store" / name, stages=1, version=version)

    def start(self, *arguments, **options):
        run = Run(self.folder, *arguments, **options)
        self.addCleanup(run.close)
        return run

    def first(self, *arguments, **options):
        return self.start("--model-store", self.folder / "store", "--enable-model-api", "--port", "0", *FREE_PORTS, *arguments, **options)

    def snapshots(self):
        return sorted((self.folder / "logs" / "config").glob("*"))

    def saved(self, file=None):
        """The key model_snapshot of the last snapshot."""
        line = next(line for line in (file or self.snapshots()[-1]).read_text().splitlines() if line.startswith("model_snapshot="))
        return json.loads(line.removeprefix("model_snapshot="))

    def ok(self, reply):
        self.assertIsInstance(reply, Reply)
        self.assertLess(reply.status, 400, reply.text)

    def test_every_change_is_saved_in_torchserves_form(self):
        run = self.first("--models", "one")
        self.ok(run.admin("POST", "/models?url=two-v1&model_name=two&initial_workers=0&batch_size=3&response_timeout=7"))
        self.ok(run.admin("PUT", "/models/one?min_worker=2&max_worker=3&synchronous=true"))
        self.ok(run.admin("POST", "/models?url=two-v2&model_name=two&initial_workers=0"))
        self.ok(run.admin("PUT", "/models/two/2.0/set-default"))
        self.assertGreaterEqual(run.admin("POST", "/models?url=none").status, 400)
        self.ok(run.admin("DELETE", "/models/two/1.0"))
        self.assertEqual(run.stop(), 0)
        names = [file.name for file in self.snapshots()]
        for name in names:
            self.assertRegex(name, r"^\d{17}-(startup|snapshot|shutdown)\.cfg$")
        self.assertEqual([name[18:-4] for name in names], ["startup"] + ["snapshot"] * 5 + ["shutdown"])
        last = self.saved()
        self.assertEqual((last["name"], last["modelCount"], sorted(last["models"])), (names[-1], 2, ["one", "two"]))
        one, two = last["models"]["one"]["1.0"], last["models"]["two"]["2.0"]
        self.assertEqual({key: one[key] for key in ("defaultVersion", "marName", "minWorkers", "maxWorkers")},
                         {"defaultVersion": True, "marName": "one", "minWorkers": 2, "maxWorkers": 3})
        self.assertEqual((two["marName"], two["minWorkers"], two["defaultVersion"]), ("two-v2", 0, True))
        before = self.saved(self.snapshots()[2])["models"]["two"]["1.0"]
        self.assertEqual((before["batchSize"], before["responseTimeout"]), (3, 7))

    def test_a_server_starts_from_the_last_one(self):
        run = self.first("--models", "one", "--set", "job_queue_size=7")
        self.ok(run.admin("POST", "/models?url=two-v1&model_name=two&initial_workers=0&batch_size=3&handler=invalidHandler"))
        self.ok(run.admin("POST", "/models?url=two-v2&model_name=two&initial_workers=1"))
        self.ok(run.admin("PUT", "/models/two/2.0/set-default"))
        self.ok(run.admin("PUT", "/models/one?min_worker=2&synchronous=true"))
        self.assertEqual(run.stop(), 0)
        again = self.start()  # no flag: addresses, store and all come from the snapshot
        one, two = again.admin("GET", "/models/one").json[0], again.admin("GET", "/models/two").json[0]
        self.assertEqual((one["minWorkers"], len(one["workers"]), one["jobQueueStatus"]["remainingCapacity"]), (2, 2, 7))
        self.assertEqual((two["modelVersion"], len(two["workers"])), ("2.0", 1))
        old = again.admin("GET", "/models/two/1.0").json[0]
        self.assertEqual((old["batchSize"], old["workers"]), (3, []))
        self.assertEqual(again.admin("PUT", "/models/two/1.0?min_worker=1&synchronous=true").status, 500, "its handler was saved, too")
        self.ok(again.admin("DELETE", "/models/two/1.0"))
        self.assertEqual(again.stop(), 0)
        asked = self.start("--models", "two-v1")
        self.assertEqual([m["modelName"] for m in asked.admin("GET", "/models").json["models"]], ["two-v1"], "what is asked for now is stronger")

    def test_a_snapshot_of_another_version_is_read(self):
        self.assertEqual(self.first("--models", "one").stop(), 0)
        file = self.snapshots()[-1]
        saved = self.saved()
        saved["future"] = {"a": [1]}
        version = saved["models"]["one"]["1.0"]
        version["newField"] = {"b": 2}
        for key in ("maxWorkers", "startupTimeout", "runtimeType", "maxBatchDelay"):
            version.pop(key, None)
        lines = [line for line in file.read_text().splitlines() if not line.startswith("model_snapshot=")]
        file.write_text("\n".join(lines + ["key_of_the_future=1", "model_snapshot=" + json.dumps(saved)]) + "\n")
        again = self.start()
        self.assertEqual(len(again.admin("GET", "/models/one").json[0]["workers"]), 1)
        self.assertIn("key_of_the_future: passed over", (self.folder / "stderr").read_text())

    def test_a_model_that_is_gone_is_one_error(self):
        self.assertEqual(self.first("--models", "one").stop(), 0)
        shutil.rmtree(self.folder / "store" / "one")
        code, _, errors = run_penstock("serve", "--snapshots", "--log-dir", self.folder / "logs", environment={"PENSTOCK_WORKER": FAKE_WORKER}.items(),
                                       cwd=self.folder)
        self.assertNotEqual(code, 0)
        self.assertIn("model 'one' 1.0 of the snapshot: no folder and no archive 'one'", errors)

    def test_a_name_that_is_no_text_costs_no_snapshot(self):
        run = self.first("--models", "one")
        self.ok(run.admin("POST", "/models?url=two-v1&model_name=two&handler=%ff%fe&initial_workers=0"))
        self.ok(run.admin("GET", "/models/two"))
        self.assertEqual(run.stop(), 0)
        self.assertEqual(sorted(self.saved()["models"]), ["one", "two"])

    def test_without_room_for_them_serving_goes_on(self):
        run = self.first("--models", "one", limit=200)  # bytes of any file: as a full disk
        self.ok(run.admin("PUT", "/models/one?min_worker=2&synchronous=true"))
        self.assertEqual(len(run.admin("GET", "/models/one").json[0]["workers"]), 2)
        self.assertEqual(self.snapshots(), [], "nothing half written stays")
        self.assertEqual(run.stop(), 0)

    def test_nothing_is_saved_unless_that_is_asked_for(self):
        with self.subTest("penstock serve"):
            process = subprocess.Popen([BIN / "penstock", "serve", "--log-dir", self.folder / "logs", "--model-store", self.folder / "store", "--models", "one",
                                        "--port", "0", *FREE_PORTS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self.folder,
                                       env=dict(os.environ, PENSTOCK_WORKER=FAKE_WORKER))
            self.addCleanup(process.stdout.close)
            self.assertIn(b"Model server started.", process.stdout.readline())
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(40), 0)
            self.assertFalse((self.folder / "logs" / "config").exists())
