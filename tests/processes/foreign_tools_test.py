"""The models that training and `penstock checkpoint export` write, opened by the tools that others would open them with: PyPI's safetensors, tokenizers and transformers.

PENSTOCK_FOREIGN_VENV   a virtual environment that has them already, or where it is to be made
"""
import json
import os
import pathlib
import subprocess
import sys
import unittest

from train_case import BIN, TrainCase

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from pypi import packages  # noqa: E402


def setUpModule():
    global safetensors, tokenizers, transformers
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")  # nothing is looked for in the network
    _, safetensors, tokenizers, transformers = packages("foreign-venv", "PENSTOCK_FOREIGN_VENV", "numpy", "safetensors", "tokenizers", "transformers")


# What Hugging Face's LlamaForCausalLM has, for the shape of tiny.yaml.
HIDDEN, LAYERS, KEYS, MIDDLE, VOCABULARY = 48, 4, 24, 128, 257
BLOCK = {"input_layernorm.weight": [HIDDEN], "post_attention_layernorm.weight": [HIDDEN], "self_attn.q_proj.weight": [HIDDEN, HIDDEN], "self_attn.k_proj.weight": [KEYS, HIDDEN],
         "self_attn.v_proj.weight": [KEYS, HIDDEN], "self_attn.o_proj.weight": [HIDDEN, HIDDEN], "mlp.gate_proj.weight": [MIDDLE, HIDDEN],
         "mlp.up_proj.weight": [MIDDLE, HIDDEN], "mlp.down_proj.weight": [HIDDEN, MIDDLE]}
SHAPES = {"model.embed_tokens.weight": [VOCABULARY, HIDDEN], "model.norm.weight": [HIDDEN], "lm_head.weight": [VOCABULARY, HIDDEN],
          **{f"model.layers.{layer}.{name}": shape for layer in range(LAYERS) for name, shape in BLOCK.items()}}


def opened(folder):
    """{name: (dtype, shape, bytes)} as the package reads it, which checks the header's every offset."""
    content = (folder / "model.safetensors").read_bytes()
    return {name: (tensor["dtype"], list(tensor["shape"]), bytes(tensor["data"])) for name, tensor in safetensors.deserialize(content)}


class ForeignToolsTest(TrainCase):
    def exported(self, run, name):
        output = self.folder / name
        done = subprocess.run([BIN / "penstock", "checkpoint", "export", self.folder / run, "--output", output], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return output

    def test_safetensors_finds_the_names_shapes_and_values_of_both_exports(self):
        import numpy
        from safetensors.numpy import load_file
        self.train("run", **{"steps": 4, "checkpoint.every_steps": 4})
        model, exported = self.folder / "run" / "model", self.exported("run", "exported")
        tensors = opened(model)
        self.assertEqual({name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()}, {name: ("F32", shape) for name, shape in SHAPES.items()})
        self.assertEqual(opened(exported), tensors)
        self.assertEqual({path.name: path.read_bytes() for path in exported.glob("*.json")}, {path.name: path.read_bytes() for path in model.glob("*.json")})
        for name, values in load_file(exported / "model.safetensors").items():
            self.assertEqual((values.dtype, list(values.shape)), (numpy.float32, SHAPES[name]), name)
            self.assertTrue(numpy.isfinite(values).all() and values.any(), name)

    def test_a_model_in_bfloat16_has_the_upper_halves_of_the_checkpoints_floats(self):
        import numpy
        self.train("run", **{"steps": 4, "checkpoint.every_steps": 4, "export.dtype": "bf16"})
        tensors = opened(self.folder / "run" / "model")
        self.assertEqual({name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()}, {name: ("BF16", shape) for name, shape in SHAPES.items()})
        self.assertEqual(opened(self.exported("run", "exported")), tensors)
        weights = {}
        for file in sorted((self.folder / "run" / "checkpoints").glob("*/*.safetensors")):
            with safetensors.safe_open(file, framework="numpy") as checkpoint:
                weights.update({name: checkpoint.get_tensor(name) for name in checkpoint.keys()})
        for name, (_, shape, content) in tensors.items():
            wide = (numpy.frombuffer(content, numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32).reshape(shape)
            numpy.testing.assert_allclose(wide, weights[name], rtol=2 ** -8, atol=0, err_msg=name)

    def test_transformers_and_tokenizers_read_the_directory(self):
        self.train("run", **{"steps": 2})
        model = self.folder / "run" / "model"
        config = transformers.AutoConfig.from_pretrained(model)
        self.assertIsInstance(config, transformers.LlamaConfig)
        self.assertEqual((config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads, config.intermediate_size, config.vocab_size),
                         (HIDDEN, LAYERS, 4, 2, MIDDLE, VOCABULARY))
        self.assertEqual((config.max_position_embeddings, config.tie_word_embeddings, config.architectures), (4096, False, ["LlamaForCausalLM"]))
        written = json.loads((model / "config.json").read_text())
        renamed = {"torch_dtype", "rope_theta", "rope_scaling"}  # in transformers 5
        self.assertEqual(set(written) - set(config.to_dict()) - renamed, set(), "keys that transformers does not know")
        text = "Grüße, \u4e16\u754c\n"  # a byte a token
        for tokenizer in (tokenizers.Tokenizer.from_file(str(model / "tokenizer.json")), transformers.AutoTokenizer.from_pretrained(model)):
            ids = tokenizer.encode(text)
            ids = getattr(ids, "ids", ids)
            self.assertEqual(ids, list(text.encode()))
            self.assertEqual(tokenizer.decode(ids), text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
