"""Exceptions can pass every function of the programs: no entry of the unwind table is hidden by an empty one at the same address."""
import os
import pathlib
import re
import subprocess
import unittest

BIN = pathlib.Path(os.environ["PENSTOCK_BIN"])
FUNCTION = re.compile(r" FDE .* pc=([0-9a-f]+)\.\.([0-9a-f]+)")


def hidden(program):
    """Addresses of functions that share theirs with an empty one."""
    table = subprocess.run(["readelf", "--debug-dump=frames-interp", program], capture_output=True, text=True, check=True).stdout
    functions = FUNCTION.findall(table)
    if not functions:
        raise AssertionError(f"{program}: readelf shows no function")
    return {begin for begin, end in functions if begin == end} & {begin for begin, end in functions if begin != end}


class UnwindingTest(unittest.TestCase):
    def test_no_function_is_hidden(self):
        for name in ("penstock", "penstock-worker", "penstock-handler"):
            program = BIN / name
            if program.exists():
                with self.subTest(name):
                    self.assertEqual(hidden(program), set())


if __name__ == "__main__":
    unittest.main()
