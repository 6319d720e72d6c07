"""From another tool's model directory through training to the server: what is read and written is checked by hand, without our own readers."""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "grpc"))
try:
    import penstock_server
except ImportError as absent:
    print(f"skipped: {absent} (python3-grpcio, python3-protobuf)")
    sys.exit(77)

BIN = penstock_server.BIN
TRAINED = pathlib.Path(os.environ["PENSTOCK_TEST_MODEL"])


def read_safetensors(file):
    """{name: (dtype, shape, bytes)}"""
    content = file.read_bytes()
    size = struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8:8 + size])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], content[8 + size + t["data_offsets"][0]:8 + size + t["data_offsets"][1]]) for name, t in header.items()}


def write_safetensors(file, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def to_bfloat16(floats):
    return b"".join(floats[i + 2:i + 4] for i in range(0, len(floats), 4))


class FineTuneTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="penstock-fine-tune-")
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)
        (self.folder / "text").write_text("\n%\n".join(f"document {i * i} says: the quick brown fox jumps over {i} lazy dogs" for i in range(600)))
        self.source = self.write_qwen2(self.folder / "qwen2")

    def write_qwen2(self, folder):
        """The trained Llama as a Qwen2 in bfloat16 and two shards: its biases are zero."""
        folder.mkdir()
        tensors = {name: ("BF16", shape, to_bfloat16(data)) for name, (_, shape, data) in read_safetensors(TRAINED / "model.safetensors").items()}
        for name, (_, shape, _) in list(tensors.items()):
            if any(name.endswith(f"{part}_proj.weight") for part in "qkv"):
                tensors[name.replace("weight", "bias")] = ("BF16", shape[:1], bytes(2 * shape[0]))
        names = sorted(tensors)
        shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for file, part in shards.items():
            write_safetensors(folder / file, {name: tensors[name] for name in part})
        index = {"metadata": {"total_size": sum(len(data) for _, _, data in tensors.values())}, "weight_map": {name: file for file, part in shards.items() for name in part}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        config = json.loads((TRAINED / "config.json").read_text())
        config.update(architectures=["Qwen2ForCausalLM"], model_type="qwen2", torch_dtype="bfloat16", use_sliding_window=False, something_else=[1, {"a": None}])
        (folder / "config.json").write_text(json.dumps(config))
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(TRAINED / file, folder / file)
        (folder / "generation_config.json").write_text('{ "eos_token_id": 256,"temperature": 0.7 }')
        (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
        self.tensors = tensors
        return folder

    def train(self, name, *arguments, **settings):
        config = self.folder / f"{name}.yaml"
        config.write_text(json.dumps({"model": {"path": str(self.source)}, "data": {"path": str(self.folder / "text")}, "output": str(self.folder / name), "steps": 20,
                                      "batch": {"microbatches": 2, "microbatch_size": 4, "sequence_length": 64}, "optimizer": {"lr": 0.003, "warmup_steps": 2}, **settings}))
        done = subprocess.run([BIN / "penstock", "train", config, "--quiet", *arguments], capture_output=True, text=True, timeout=120)
        return done, self.folder / name

    def test_a_model_of_another_tool_is_trained_further_and_served(self):
        done, run = self.train("run", mesh={"pipe": 2}, checkpoint={"every_steps": 20}, validation={"every_steps": 1, "batches": 1})
        self.assertEqual(done.returncode, 0, done.stderr)
        losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        self.assertEqual(len(losses), 20)
        self.assertLess(losses[-1], 0.8 * losses[0])

        written = read_safetensors(run / "model" / "model.safetensors")
        self.assertEqual({n: t[:2] for n, t in written.items()}, {n: t[:2] for n, t in self.tensors.items()})
        self.assertTrue(any(written["model.layers.0.self_attn.q_proj.bias"][2]), "the bias has learned nothing")
        others = [f.name for f in self.source.iterdir() if not f.name.startswith("model")]
        self.assertEqual(len(others), 6)
        for name in others:
            self.assertEqual((run / "model" / name).read_bytes(), (self.source / name).read_bytes(), name)

        exported = subprocess.run([BIN / "penstock", "checkpoint", "export", run, "--output", self.folder / "exported"], capture_output=True, text=True, timeout=60)
        self.assertEqual(exported.returncode, 0, exported.stderr)
        self.assertEqual(read_safetensors(self.folder / "exported" / "model.safetensors"), written)

        penstock_server.TEST_MODEL = str(run / "model")
        server = penstock_server.Server(stages=2)
        self.addCleanup(server.close)
        answer = b"".join(m.prediction for m in server.client.stream(penstock_server.request(prompt="document 4 says", max_tokens=30, temperature=0)))
        self.assertTrue(answer)

    def test_a_model_that_cannot_be_is_refused_before_anything_is_trained(self):
        (self.source / "model-00002-of-00002.safetensors").unlink()
        done, _ = self.train("broken")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("model-00002-of-00002.safetensors is missing", done.stderr)
        self.source = self.folder / "nowhere"
        done, _ = self.train("nowhere")
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr.count("does not exist or is not a folder"), 1, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
