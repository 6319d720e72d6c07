"""A short soak; by hand: python3 tests/grpc/soak.py 600."""
import unittest

import soak
from penstock_server import FAKE_WORKER


@unittest.skipUnless(FAKE_WORKER, "needs a worker whose answers are known")
class SoakTest(unittest.TestCase):
    def test_twenty_seconds_of_cancels_deadlines_kills_and_registrations(self):
        run = soak.Soak(20, seed=7)
        self.addCleanup(run.close)
        counts = run.run(say=lambda line: None)
        self.assertGreater(counts["stream: OK"], 0)
        self.assertGreater(counts["killed workers"], 0)
