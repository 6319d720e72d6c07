"""`penstock convert` as people run it: no bit changes on the way there and back, nothing is overwritten unasked."""
import json
import os
import shutil
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

PENSTOCK = Path(os.environ["PENSTOCK_BIN"]) / "penstock"
MODELS = Path(os.environ.get("PENSTOCK_SHARED", Path(__file__).resolve().parents[2] / ".." / "shared")) / "data" / "models"
GGUF_TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 8: ("Q8_0", 32, 34), 2: ("Q4_0", 32, 18)}


def safetensors(folder):
    """Name -> (dtype, shape, bytes)."""
    tensors = {}
    for file in folder.glob("*.safetensors"):
        data = file.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:8 + size]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                tensors[name] = (entry["dtype"], entry["shape"], data[8 + size + begin:8 + size + end])
    return tensors


def gguf(file):
    """(metadata, name -> (type, shape, bytes)); a reader of its own."""
    data, at = file.read_bytes(), 8

    def take(layout):
        nonlocal at
        value = struct.unpack_from("<" + layout, data, at)[0]
        at += struct.calcsize("<" + layout)
        return value

    def text():
        nonlocal at
        size = take("Q")
        at += size
        return data[at - size:at].decode()

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            element, count = take("I"), take("Q")
            return [value(element) for _ in range(count)]
        return take({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind])

    num_tensors, num_keys = take("Q"), take("Q")
    metadata = {}
    for _ in range(num_keys):
        key = text()
        metadata[key] = value(take("I"))
    infos = []
    for _ in range(num_tensors):
        name = text()
        shape = [take("Q") for _ in range(take("I"))]
        infos.append((name, shape[::-1], take("I"), take("Q")))
    begin, tensors = (at + 31) // 32 * 32, {}
    for name, shape, kind, offset in infos:
        dtype, block, size = GGUF_TYPES[kind]
        count = 1
        for dim in shape:
            count *= dim
        tensors[name] = (dtype, shape, data[begin + offset:begin + offset + count // block * size])
    return metadata, tensors


@unittest.skipUnless(MODELS.exists(), f"no {MODELS}")
class ConvertTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def convert(self, *arguments, code=0):
        done = subprocess.run([PENSTOCK, "convert", *map(str, arguments)], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def test_every_architecture_goes_there_and_back_without_a_changed_bit(self):
        for name in ("tiny_gpt2", "tiny_qwen2", "tiny_qwen3", "tiny_mistral"):
            with self.subTest(name):
                hf, back = self.folder / name, self.folder / f"{name}.gguf"
                self.convert(MODELS / name / f"{name}.gguf", hf)
                expected, found = safetensors(MODELS / name), safetensors(hf)
                for tensor, value in expected.items():
                    self.assertEqual(found[tensor], value, tensor)
                self.assertLessEqual(set(found) - set(expected), {"lm_head.weight"})
                self.convert(hf, back)
                self.assertEqual(gguf(back)[1], gguf(MODELS / name / f"{name}.gguf")[1])
                old, new = gguf(MODELS / name / f"{name}.gguf")[0], gguf(back)[0]
                for key in old:
                    if key != "general.name" and not key.endswith("rope.freq_base"):
                        self.assertEqual(new[key], old[key], key)

    def test_bfloat16_in_shards_and_its_tokenizer(self):
        source, file, back = self.folder / "source", self.folder / "x.gguf", self.folder / "back"
        shutil.copytree(MODELS / "tiny_mistral" / "sharded_bf16", source)
        self.convert(MODELS / "tiny_mistral" / "tiny_mistral.gguf", self.folder / "other")
        for name in ("tokenizer.model", "tokenizer_config.json"):
            shutil.copy(self.folder / "other" / name, source)
        self.convert(source, file)
        kinds = {dtype for dtype, shape, _ in gguf(file)[1].values() if len(shape) == 2}
        self.assertEqual(kinds, {"BF16"})
        self.convert(file, back)
        self.assertEqual(safetensors(back), safetensors(source))
        self.assertEqual((back / "tokenizer.model").read_bytes(), (source / "tokenizer.model").read_bytes())
        self.assertEqual(json.loads((back / "config.json").read_text())["torch_dtype"], "bfloat16")

    def test_blocks_of_integers(self):
        source = MODELS / "stories260K" / "hf"
        for kind, expected in (("q8_0", {"Q8_0"}), ("q4_0", {"Q4_0", "Q8_0"})):
            self.convert(source, self.folder / f"{kind}.gguf", "--type", kind)
            metadata, tensors = gguf(self.folder / f"{kind}.gguf")
            matrices = {n: t for n, t in tensors.items() if len(t[1]) == 2}
            self.assertEqual({t[0] for t in matrices.values() if t[1][-1] % 32 == 0}, expected)
            self.assertEqual({t[0] for t in matrices.values() if t[1][-1] % 32 != 0}, {"F16"}, "rows of 172 values")
            self.assertEqual({t[0] for t in tensors.values() if len(t[1]) == 1}, {"F32"})
            self.assertEqual(metadata["general.quantization_version"], 2)
            self.convert(self.folder / f"{kind}.gguf", self.folder / kind)
            self.assertEqual({t[0] for t in safetensors(self.folder / kind).values()}, {"F16", "F32"})

    def test_nothing_is_overwritten_unasked_and_no_half_of_a_model_is_left(self):
        source = MODELS / "stories260K" / "stories260K.gguf"
        out = self.folder / "out"
        out.mkdir()
        (out / "precious").write_text("x")
        self.assertIn("exists", self.convert(source, out, code=2).stderr)
        self.assertIn("no Hugging Face directory", self.convert(source, out, "--overwrite", code=2).stderr)
        self.assertEqual([p.name for p in out.iterdir()], ["precious"])
        self.convert(source, self.folder / "model")
        (self.folder / "model" / "old").write_text("x")
        self.assertIn("--overwrite", self.convert(source, self.folder / "model", code=2).stderr)
        self.convert(source, self.folder / "model", "--overwrite")
        self.assertFalse((self.folder / "model" / "old").exists())
        damaged = self.folder / "damaged.gguf"
        damaged.write_bytes(source.read_bytes()[:-1000])
        self.assertIn("truncated", self.convert(damaged, self.folder / "model", "--overwrite", code=1).stderr)
        self.assertTrue((self.folder / "model" / "config.json").exists())
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["damaged.gguf", "model", "out"])

    def test_what_cannot_be_is_said(self):
        source = MODELS / "stories260K"
        self.assertIn("is a GGUF file already", self.convert(source / "stories260K.gguf", self.folder / "x.gguf", code=2).stderr)
        self.assertIn("ends with .gguf", self.convert(source / "hf", self.folder / "x", code=2).stderr)
        self.assertIn("no such file", self.convert(self.folder / "nowhere", self.folder / "x.gguf", code=2).stderr)
        self.assertIn("not Q4_0", self.convert(source / "stories260K.gguf", self.folder / "x", "--type", "q4_0", code=2).stderr)
        self.assertIn("there is no folder", self.convert(source / "stories260K.gguf", self.folder / "no" / "x", code=2).stderr)

    def test_a_setting_that_is_refused_is_refused_before_any_weight_is_converted(self):
        data = bytearray((MODELS / "tiny_mistral" / "tiny_mistral.gguf").read_bytes())
        key = b"llama.rope.dimension_count"
        at = data.index(key) + len(key) + 4  # behind the kind of the value
        data[at:at + 4] = struct.pack("<I", 16)
        changed = self.folder / "changed.gguf"
        changed.write_bytes(data)
        said = self.convert(changed, self.folder / "x", code=2).stderr
        self.assertIn("llama.rope.dimension_count: rotating a part of the head is not supported", said)
        self.assertNotIn("%", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
