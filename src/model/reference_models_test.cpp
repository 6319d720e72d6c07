// The training forward pass and its gradients: against logits of other implementations where they are at hand, and against plain LibTorch operations.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "kernels/cross_entropy.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "model/families.h"
#include "model/parameter_io.h"
#include "model/stored_weights.h"

namespace penstock::model {
namespace {

using nlohmann::json;

// A whole model of one stage.
struct Model {
  explicit Model(const TransformerConfig& c) : config(c) {
    SharedWeights shared;
    for (const LayerSpec& spec : transformer_layers(c)) layers.push_back(spec.build(shared));
    for (auto& layer : layers) {
      for (Parameter& p : layer->parameters()) parameters.push_back(p);
    }
  }
  at::Tensor logits(const at::Tensor& ids) {
    Tensors x{ids};
    for (auto& layer : layers) x = layer->forward(x, {});
    return x.at(0);
  }
  TransformerConfig config;
  std::vector<std::unique_ptr<Layer>> layers;
  std::vector<Parameter> parameters;
};

std::filesystem::path shared_model(const std::string& name) { return std::filesystem::path(PENSTOCK_SOURCE_DIR) / "../shared/data/models" / name; }

TransformerConfig config_of(const std::filesystem::path& folder) {
  return parse_transformer_config(weights::read_config_json(folder).dump(), (folder / "config.json").string()).value();
}

Model load(const std::filesystem::path& folder) {
  Model model(config_of(folder));
  const StoredWeights weights(folder, model.config);
  for (Parameter& p : model.parameters) weights.load(p);
  weights.require_all_used(model.parameters);
  return model;
}

at::Tensor as_ids(const json& ids) { return at::tensor(ids.get<std::vector<int64_t>>(), at::kLong).unsqueeze(0); }

std::vector<int64_t> greedy(Model& model, std::vector<int64_t> ids, size_t count) {
  at::NoGradGuard no_grad;
  std::vector<int64_t> made;
  while (made.size() < count) {
    made.push_back(model.logits(at::tensor(ids, at::kLong).unsqueeze(0))[0][-1].argmax().item<int64_t>());
    ids.push_back(made.back());
  }
  return made;
}

class ReferenceModel : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(folder())) GTEST_SKIP() << "no " << folder();
  }
  static std::filesystem::path folder() { return shared_model(GetParam()); }
  // reference.json of the model; the shards of another dtype hold the same values.
  static json reference() {
    const auto beside = std::filesystem::exists(folder() / "reference.json") ? folder() : folder().parent_path();
    return json::parse(read_file(beside / "reference.json", 64 << 20).value());
  }
};

TEST_P(ReferenceModel, GivesTheLogitsOfEveryPositionAndTheGreedyTokens) {
  Model model = load(folder());
  for (const json& expected : reference()) {
    const at::Tensor logits = model.logits(as_ids(expected["ids"]))[0];
    if (expected.contains("logits_all")) {
      const auto rows = expected["logits_all"].get<std::vector<std::vector<double>>>();
      ASSERT_EQ(static_cast<int64_t>(rows.size()), logits.size(0));
      for (size_t r = 0; r < rows.size(); ++r) {
        EXPECT_LE((logits[static_cast<int64_t>(r)].to(at::kDouble) - at::tensor(rows[r], at::kDouble)).abs().max().item<double>(), 1e-4) << "position " << r;
      }
    } else {
      EXPECT_LE((logits[-1].to(at::kDouble) - at::tensor(expected["logits"].get<std::vector<double>>(), at::kDouble)).abs().max().item<double>(), 1e-4);
    }
    const json& continuation = expected.contains("greedy_30") ? expected["greedy_30"] : expected["greedy_100"];
    EXPECT_EQ(greedy(model, expected["ids"], continuation.size()), continuation.get<std::vector<int64_t>>());
  }
}

INSTANTIATE_TEST_SUITE_P(All, ReferenceModel,
                         testing::Values("stories260K/hf", "tiny_gpt2", "tiny_mistral", "tiny_mistral/sharded_bf16", "tiny_qwen2", "tiny_qwen3",
                                         "stories260K/stories260K.gguf", "tiny_gpt2/tiny_gpt2.gguf", "tiny_mistral/tiny_mistral.gguf", "tiny_qwen2/tiny_qwen2.gguf",
                                         "tiny_qwen3/tiny_qwen3.gguf"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace_if(name, [](char c) { return c == '/' || c == '.'; }, '_');
                           return name;
                         });

// The same model by plain operations, from the stored names; autograd makes the gradients.
at::Tensor plain_logits(const TransformerConfig& c, std::map<std::string, at::Tensor>& w, const at::Tensor& ids) {
  const auto get = [&](const std::string& name) { return w.at(name); };
  const auto product = [&](const at::Tensor& x, const std::string& name) {
    const auto bias = w.find(name + ".bias");
    return at::linear(x, get(name + ".weight"), bias == w.end() ? c10::optional<at::Tensor>() : bias->second);
  };
  const ScaledFrequencies f = scaled_frequencies(c.rope_scaling, c.head_size, c.rope_theta);
  const int64_t length = ids.size(1);
  const at::Tensor angles = at::arange(length, at::kDouble).unsqueeze(1) * at::tensor(f.frequencies, at::kDouble).unsqueeze(0);
  const at::Tensor cos = (at::cat({angles, angles}, 1).cos() * f.scale).to(at::kFloat), sin = (at::cat({angles, angles}, 1).sin() * f.scale).to(at::kFloat);
  const auto heads = [&](const at::Tensor& x, int64_t count) { return x.view({ids.size(0), length, count, c.head_size}).transpose(1, 2); };
  const auto rotated = [&](const at::Tensor& x) {
    const auto halves = x.chunk(2, -1);
    return x * cos + at::cat({-halves[1], halves[0]}, -1) * sin;
  };
  at::Tensor x = at::embedding(get("model.embed_tokens.weight"), ids);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string block = fmt::format("model.layers.{}.", i), attention = block + "self_attn.", mlp = block + "mlp.";
    const at::Tensor h = kernels::rms_norm_reference(x, get(block + "input_layernorm.weight"), c.norm_eps);
    at::Tensor q = heads(product(h, attention + "q_proj"), c.num_heads), k = heads(product(h, attention + "k_proj"), c.num_kv_heads);
    at::Tensor v = heads(product(h, attention + "v_proj"), c.num_kv_heads);
    if (c.qk_norm) {
      q = kernels::rms_norm_reference(q, get(attention + "q_norm.weight"), c.norm_eps);
      k = kernels::rms_norm_reference(k, get(attention + "k_norm.weight"), c.norm_eps);
    }
    const int64_t group = c.num_heads / c.num_kv_heads;
    const at::Tensor scores = at::matmul(rotated(q), rotated(k).repeat_interleave(group, 1).transpose(-1, -2)) / std::sqrt(static_cast<double>(c.head_size));
    const at::Tensor hidden = at::ones({length, length}, at::kBool).triu(1);
    const at::Tensor mixed = at::matmul(at::softmax(scores.masked_fill(hidden, -INFINITY), -1), v.repeat_interleave(group, 1));
    x = x + product(mixed.transpose(1, 2).reshape({ids.size(0), length, -1}), attention + "o_proj");
    const at::Tensor g = kernels::rms_norm_reference(x, get(block + "post_attention_layernorm.weight"), c.norm_eps);
    x = x + product(at::silu(product(g, mlp + "gate_proj")) * product(g, mlp + "up_proj"), mlp + "down_proj");
  }
  x = kernels::rms_norm_reference(x, get("model.norm.weight"), c.norm_eps);
  return at::linear(x, get(c.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight"));
}

at::Tensor plain_gpt2_logits(const TransformerConfig& c, std::map<std::string, at::Tensor>& w, const at::Tensor& ids) {
  const auto get = [&](const std::string& name) { return w.at("transformer." + name); };
  const auto product = [&](const at::Tensor& x, const std::string& name) { return at::matmul(x, get(name + ".weight")) + get(name + ".bias"); };
  const auto norm = [&](const at::Tensor& x, const std::string& name) {
    const at::Tensor centred = x - x.mean(-1, true);
    return centred / (centred.square().mean(-1, true) + c.norm_eps).sqrt() * get(name + ".weight") + get(name + ".bias");
  };
  const int64_t length = ids.size(1);
  at::Tensor x = at::embedding(get("wte.weight"), ids) + get("wpe.weight").narrow(0, 0, length);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string block = fmt::format("h.{}.", i);
    std::vector<at::Tensor> qkv;
    for (const at::Tensor& part : product(norm(x, block + "ln_1"), block + "attn.c_attn").chunk(3, -1)) qkv.push_back(part.view({ids.size(0), length, c.num_heads, c.head_size}).transpose(1, 2));
    const at::Tensor scores = at::matmul(qkv[0], qkv[1].transpose(-1, -2)) / std::sqrt(static_cast<double>(c.head_size));
    const at::Tensor mixed = at::matmul(at::softmax(scores.masked_fill(at::ones({length, length}, at::kBool).triu(1), -INFINITY), -1), qkv[2]);
    x = x + product(mixed.transpose(1, 2).reshape({ids.size(0), length, -1}), block + "attn.c_proj");
    const at::Tensor up = product(norm(x, block + "ln_2"), block + "mlp.c_fc");
    x = x + product(0.5 * up * (1 + (std::sqrt(2 / M_PI) * (up + 0.044715 * up.pow(3))).tanh()), block + "mlp.c_proj");
  }
  return at::linear(norm(x, "ln_f"), get("wte.weight"));
}

struct Case {
  const char* name;
  const char* architecture;
  json more;
};

class Gradients : public testing::TestWithParam<Case> {};

TEST_P(Gradients, EqualThoseOfPlainOperations) {
  json file = {{"architectures", {GetParam().architecture}}, {"vocab_size", 40}, {"hidden_size", 24}, {"num_hidden_layers", 2}, {"num_attention_heads", 4},
               {"num_key_value_heads", 2}, {"intermediate_size", 20}, {"max_position_embeddings", 64}, {"initializer_range", 0.3}};
  file.update(GetParam().more);
  Model model(parse_transformer_config(file.dump(), "config.json").value());
  at::manual_seed(4);
  std::map<std::string, at::Tensor> plain;  // leaves under the stored names
  {
    at::NoGradGuard no_grad;
    for (Parameter& p : model.parameters) {
      initialize(p, 3);
      if (p.init_std == 0) p.value.add_(at::randn_like(p.value) * 0.3);  // norms and biases that do something
      for (auto& [name, part] : stored_parts(p, p.value)) plain[name] = part.clone();
    }
  }
  for (auto& [name, leaf] : plain) leaf.requires_grad_(true);
  const at::Tensor ids = at::randint(0, 40, {2, 17}, at::kLong), targets = at::randint(0, 40, {2, 17}, at::kLong);
  const at::Tensor logits = model.logits(ids);
  const at::Tensor expected = model.config.architecture == "GPT2LMHeadModel" ? plain_gpt2_logits(model.config, plain, ids) : plain_logits(model.config, plain, ids);
  EXPECT_LT((logits - expected).abs().max().item<double>(), 2e-4);
  kernels::cross_entropy_sum(logits, targets).backward();
  kernels::cross_entropy_sum_reference(expected, targets).backward();
  for (const Parameter& p : model.parameters) {
    for (const auto& [name, ours] : stored_parts(p, p.value.grad())) {
      const at::Tensor theirs = plain.at(name).grad();
      EXPECT_LT(((ours - theirs).abs().max() / theirs.abs().max()).item<double>(), 1e-4) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, Gradients,
    testing::Values(Case{"llama", "LlamaForCausalLM", {{"attention_bias", true}, {"mlp_bias", true}}},
                    Case{"llama3", "LlamaForCausalLM", {{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 1}, {"high_freq_factor", 4}, {"original_max_position_embeddings", 16}}}}},
                    Case{"yarn", "LlamaForCausalLM", {{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 16}}}}},
                    Case{"mistral", "MistralForCausalLM", {{"head_dim", 10}}}, Case{"qwen2_tied", "Qwen2ForCausalLM", {{"tie_word_embeddings", true}}},
                    Case{"qwen3", "Qwen3ForCausalLM", {{"head_dim", 8}}},
                    Case{"gpt2", "GPT2LMHeadModel", {{"n_embd", 24}, {"n_layer", 2}, {"n_head", 4}, {"n_positions", 64}}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace penstock::model
