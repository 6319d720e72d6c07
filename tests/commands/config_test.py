"""`penstock config check`: what it says of files that are right and of files that are not."""
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

PENSTOCK = Path(os.environ["PENSTOCK_BIN"]) / "penstock"


class ConfigCheck(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="penstock-config-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def check(self, *arguments):
        done = subprocess.run([PENSTOCK, "config", "check", *map(str, arguments)], capture_output=True, text=True, timeout=30, cwd=self.folder)
        return done.returncode, done.stdout, done.stderr

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return name

    def test_each_kind_of_file_is_known_by_its_name_and_its_keys(self):
        files = [self.write("config.properties", "job_queue_size=7\n"), self.write("model-config.yaml", "minWorkers: 1\n"),
                 self.write("run.yaml", "model: {hidden_size: 8, num_layers: 1, num_heads: 1, intermediate_size: 8}\noutput: x\nsteps: 1\ndata: {path: y}\n")]
        code, said, errors = self.check(*files)
        self.assertEqual((code, errors), (0, ""))
        self.assertEqual(said.splitlines(), ["config.properties: good (config.properties)", "model-config.yaml: good (model-config.yaml)",
                                             "run.yaml: good (training configuration)"])

    def test_keys_that_do_nothing_are_told_and_are_no_error(self):
        code, said, _ = self.check(self.write("config.properties", "vmargs=-Xmx1g\n"))
        self.assertEqual(code, 0)
        self.assertIn("config.properties:1: vmargs: not applicable", said)

    def test_every_wrong_file_is_told_with_file_line_and_key(self):
        files = [self.write("config.properties", "\njob_queue_size=many\n"), self.write("model-config.yaml", "minWorkers: 1\nmaxWrokers: 1\n"),
                 self.write("good.yaml", "minWorkers: 1\n")]
        code, said, errors = self.check(*files)
        self.assertEqual(code, 2)
        self.assertIn("config.properties:2: key 'job_queue_size': expected an integer >= 1, found 'many'", errors)
        self.assertIn("model-config.yaml:2: unknown key 'maxWrokers'; did you mean 'maxWorkers'?", errors)
        self.assertIn("good.yaml: good", said)

    def test_a_file_that_is_not_there_or_of_no_kind(self):
        self.assertEqual(self.check("none.properties")[0], 2)
        code, _, errors = self.check(self.write("config.txt", "job_queue_size=7\n"))
        self.assertEqual(code, 2)
        self.assertIn("--kind", errors)
        self.assertEqual(self.check("--kind", "server", "config.txt")[0], 0)

    def test_hostile_yaml_is_refused_at_once(self):
        bomb = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n"
        for text in (bomb, "a: " + "[" * 20000, "minWorkers: !!python/object:os.system 1\n", "\xff\x00"):
            self.assertEqual(self.check(self.write("model-config.yaml", text))[0], 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
