"""The planning commands as people run them: what they print, what they refuse, and with which exit code."""
import json
import os
import struct
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

PENSTOCK = Path(os.environ["PENSTOCK_BIN"]) / "penstock"


def run(*arguments):
    return subprocess.run([PENSTOCK, *map(str, arguments)], capture_output=True, text=True, timeout=30)


def write_model(folder: Path, blocks: int, width: int, tied: bool):
    """A Hugging Face directory with tensors of zeros, in two files."""
    shapes = {"model.embed_tokens.weight": [32, width], "model.norm.weight": [width]}
    for i in range(blocks):
        shapes[f"model.layers.{i}.mlp.up_proj.weight"] = [2 * width, width]
    if not tied:
        shapes["lm_head.weight"] = [32, width]
    names = sorted(shapes)
    for number, part in enumerate((names[::2], names[1::2])):
        header, offset = {}, 0
        for name in part:
            size = 4
            for length in shapes[name]:
                size *= length
            header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (folder / f"model-{number}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))


class Refused(unittest.TestCase):
    def assert_refused(self, result, *parts):
        self.assertEqual(result.returncode, 2, result)
        for part in parts:
            self.assertIn(part, result.stderr)


class PartitionTest(Refused):
    def boundaries(self, *arguments):
        result = run("partition", *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.strip()

    def test_each_method(self):
        weights = ("--weights", "1,1,30,3", "--stages", 3)
        self.assertEqual(self.boundaries(*weights), "0,2,3,4")
        self.assertEqual(self.boundaries(*weights, "--method", "parameters"), "0,2,3,4")
        self.assertEqual(self.boundaries(*weights, "--method", "uniform"), "0,2,3,4")
        self.assertEqual(self.boundaries(*weights, "--method", "deepspeed"), "0,2,3,4")
        self.assertEqual(self.boundaries(*weights, "--method", "0,1,2,4"), "0,1,2,4")
        self.assertEqual(self.boundaries("--weights", "1.5, 2.5,4", "--stages", 2), "0,2,3")
        self.assertEqual(self.boundaries("--weights", "9,1,1,9", "--types", "e,b,b,h", "--stages", 2, "--method", "type:B"), "0,2,4")
        self.assertEqual(self.boundaries("--weights", "1,1", "--stages", 3, "--allow-empty"), "0,1,2,2")

    def test_a_model(self):
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder), 4, 8, tied=True)
            result = run("partition", "--model", folder, "--stages", 2, "--method", "parameters")
            self.assertEqual(result.returncode, 0, result.stderr)
            # 256 embedding + 4 x 128 + 8 + 256 for the head's copy of the table
            self.assertIn("0       3               512         0.0  model.embed_tokens … model.layers.1", result.stdout)
            self.assertIn("boundaries 0,3,6", result.stdout)
            self.assert_refused(run("partition", "--model", folder, "--stages", 2, "--memory-limit", 1e-9), "memory limit: layer", "alone holds")
            (Path(folder) / "model-1.safetensors").write_bytes(b"no")
            result = run("partition", "--model", folder, "--stages", 2)
            self.assertEqual(result.returncode, 1)
            self.assertIn("model-1.safetensors", result.stderr)

    def test_refuses(self):
        self.assert_refused(run("partition", "--weights", "1,2", "--stages", 3), "2 layers cannot fill 3 stages")
        self.assert_refused(run("partition", "--weights", "1,-2", "--stages", 1), "layer 1 weighs -2")
        self.assert_refused(run("partition", "--weights", "1,two", "--stages", 1), "layer 1: expected a number, found 'two'")
        self.assert_refused(run("partition", "--weights", "1,nan", "--stages", 1), "layer 1: expected a number, found 'nan'")
        self.assert_refused(run("partition", "--weights", "1,,2", "--stages", 1), "layer 1: expected a number, found ''")
        self.assert_refused(run("partition", "--weights", "1,2,3", "--stages", 2, "--method", "0,2,1,3"), "boundaries")
        self.assert_refused(run("partition", "--weights", "1,2", "--stages", 1, "--method", "best"), "'best'; expected minmax")
        self.assert_refused(run("partition", "--weights", "1,2"), "--stages")
        self.assert_refused(run("partition", "--stages", 2), "one of --weights and --model")
        self.assert_refused(run("partition", "--weights", "1", "--stages", 1, "--types", "a,b"), "--types: expected 1")
        self.assert_refused(run("partition", "--weights", "1", "--stages", 1, "--memory-limit", 1), "--memory-limit")
        self.assert_refused(run("partition", "--model", "/no/such", "--stages", 1), "/no/such")
        self.assert_refused(run("partition", "--weights", "1", "--stages", 1, "--memory-limit", "nan"), "--memory-limit")
        self.assert_refused(run("partition", "--wieghts", "1", "--stages", 1), "--wieghts")


class ScheduleTest(Refused):
    def test_csv_of_a_schedule_is_a_schedule_again(self):
        for name in ("gpipe", "1f1b", "eager-1f1b", "interleaved-1f1b", "looped-bfs", "zb-h1", "zb-v", "dualpipev", "forward"):
            for communication in ((), ("--communication",)):
                made = run("schedule", "--name", name, "--ranks", 3, "--microbatches", 6, "--format", "csv", *communication)
                self.assertEqual(made.returncode, 0, made.stderr)
                self.assertEqual(len(made.stdout.splitlines()), 3)
                with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
                    file.write(made.stdout)
                    file.flush()
                    again = run("schedule", "--csv", file.name, "--format", "csv")
                    self.assertEqual(again.stdout, made.stdout, again.stderr)

    def test_pictures_are_xml_and_traces_json(self):
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "p.svg"
            made = run("schedule", "--name", "zb-v", "--ranks", 4, "--microbatches", 8, "--format", "svg", "--output", picture)
            self.assertEqual((made.returncode, made.stdout), (0, ""), made.stderr)
            text = picture.read_text()
            xml.etree.ElementTree.fromstring(text)
            self.assertIn("zb-v, 4 ranks, 8 micro-batches: bubble 5.9 %", text)
            for legend in ("forward", "input gradient", "weight gradient", "idle"):
                self.assertIn(f">{legend}</text>", text)
        events = json.loads(run("schedule", "--name", "1f1b", "--format", "trace").stdout)["traceEvents"]
        self.assertEqual(sum(e["name"] == "0F0" for e in events), 1)

    def test_text_tells_bubble_and_memory(self):
        text = run("schedule", "--name", "1f1b", "--ranks", 4, "--microbatches", 64, "--hop-latency", 0.25).stdout
        self.assertIn("bubble share  15.04 %   (formula, without hops: 4.48 %)", text)
        self.assertIn("peak live activations, by rank  4 3 2 1", text)

    def test_output_goes_where_the_user_says(self):
        with tempfile.TemporaryDirectory() as folder:
            target, link, pipe = Path(folder) / "target", Path(folder) / "link", Path(folder) / "pipe"
            target.write_text("old")
            link.symlink_to(target)
            self.assertEqual(run("schedule", "--name", "1f1b", "--format", "csv", "--output", link).returncode, 0)
            self.assertTrue(link.is_symlink())
            self.assertIn("0F0", target.read_text())
            os.mkfifo(pipe)
            reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
            self.assertEqual(run("schedule", "--name", "1f1b", "--format", "csv", "--output", pipe).returncode, 0)
            self.assertIn("0F0", reader.communicate(timeout=20)[0])
            self.assertTrue(pipe.is_fifo())
            self.assert_refused(run("schedule", "--name", "1f1b", "--output", folder), "it is a folder")
            self.assert_refused(run("schedule", "--name", "1f1b", "--output", folder + "/no/x"), "there is no folder")

    def test_refuses(self):
        self.assert_refused(run("schedule", "--name", "1f1b", "--forward", "nan"), "expected 0 to 1e9")
        self.assert_refused(run("schedule", "--name", "dualpipev", "--ranks", 4, "--microbatches", 7), "found 7")
        self.assert_refused(run("schedule", "--name", "nope"), "'nope'; expected one of gpipe")
        self.assert_refused(run("schedule", "--name", "1f1b", "--chunks", 2), "chunks")
        self.assert_refused(run("schedule", "--name", "1f1b", "--chunks", 0), "--chunks")
        self.assert_refused(run("schedule", "--name", "1f1b", "--ranks", "many"), "--ranks")
        self.assert_refused(run("schedule", "--name", "1f1b", "--format", "png"), "--format")
        self.assert_refused(run("schedule", "--name", "1f1b", "--ranks", 1000, "--microbatches", 1000, "--format", "svg"), "expected at most 20000")
        self.assert_refused(run("schedule"), "--name and --csv")
        for text, problem in (("0F0,0F0,0B0\n", "0F0 twice"), ("0F0,0B0,0F1\n", "lacks 0B1"), ("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n", "whose input nobody has made"),
                              ("0F0;0B0\n", ":1: field 1")):
            with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
                file.write(text)
                file.flush()
                self.assert_refused(run("schedule", "--csv", file.name), problem)


class TimelineTest(Refused):
    def test_draws_the_measured_step(self):
        events = []
        for step in (3, 4):
            for rank in (0, 1):
                for mb in range(2):
                    for kind, start in (("F", 0), ("B", 40)):
                        events.append({"ph": "X", "name": f"{rank}{kind}{mb}", "cat": "x", "pid": rank, "tid": 0, "ts": step * 1000 + start + 20 * mb + 5 * rank,
                                       "dur": 15, "args": {"step": step, "stage": rank, "microbatch": mb}})
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "timeline.json").write_text(json.dumps({"traceEvents": events}))
            made = run("timeline", folder)
            self.assertEqual(made.returncode, 0, made.stderr)
            # 2 ranks x 4 bars of 15 us in 80 us
            self.assertIn("Step 4 as measured, 2 ranks, 2 micro-batches: bubble 25.0 %", made.stdout)
            xml.etree.ElementTree.fromstring((Path(folder) / "timeline.svg").read_text())
            self.assert_refused(run("timeline", folder, "--step", 9), "holds steps 3 to 4")

    def test_refuses(self):
        self.assert_refused(run("timeline", "/no/such/run"), "/no/such/run")


if __name__ == "__main__":
    unittest.main()
