"""Many more requests at once than the server takes."""
import json
import resource
import unittest

from http_case import HttpServerTest
from penstock_server import FAKE_WORKER

CROWD = 2000


@unittest.skipUnless(FAKE_WORKER, "needs a worker of which the speed is known")
class HttpCrowdServerTest(HttpServerTest):
    config = "jobQueueSize: 100\nhandler:\n  max_concurrent: 8\n"

    @classmethod
    def setUpClass(cls):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < CROWD + 200:
            raise unittest.SkipTest(f"a process may have {hard} files open, {CROWD + 200} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CROWD + 200), hard))
        super().setUpClass()

    def test_each_is_answered_or_refused_with_a_time_to_try_again(self):
        body = json.dumps({"model": "tiny", "prompt": "a b", "max_tokens": 4}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        crowd = []
        for _ in range(CROWD):
            connection = self.connect()
            self.addCleanup(connection.close)
            connection.settimeout(120)
            connection.sendall(head + body)
            crowd.append(connection)
        statuses = []
        for connection in crowd:
            reply = b""
            while piece := connection.recv(65536):
                reply += piece
            statuses.append(int(reply.split(b" ", 2)[1]))
            if statuses[-1] == 429:
                self.assertIn(b"\r\nretry-after: 1\r\n", reply.lower())
                self.assertIn(b"rate_limit_exceeded", reply)
            else:
                self.assertIn(b"a b a b ", reply)
        self.assertEqual(set(statuses), {200, 429})
        self.assertEqual(self.infer("GET", "/ping").status, 200)
