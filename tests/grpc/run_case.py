"""Runs one TestCase, MODULE.CLASS, and ends with 77 ("skipped") when nothing could run.

PENSTOCK_BIN          folder of the programs penstock and, for a real model, penstock-worker
PENSTOCK_FAKE_WORKER  worker program without a model; or
PENSTOCK_TEST_MODEL   Hugging Face directory to serve with the real worker
"""
import sys
import unittest

SKIPPED = 77


def main():
    try:
        import google.protobuf  # noqa: F401
        import grpc  # noqa: F401
    except ImportError as missing:
        print(f"skipped: {missing}; install python3-grpcio and python3-protobuf")
        return SKIPPED
    suite = unittest.defaultTestLoader.loadTestsFromName(sys.argv[1])
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if not result.wasSuccessful():
        return 1
    return SKIPPED if result.testsRun <= len(result.skipped) else 0  # a class or module that is skipped as a whole runs none


if __name__ == "__main__":
    sys.path.insert(0, __file__.rsplit("/", 1)[0])
    sys.exit(main())
