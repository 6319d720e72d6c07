// Layers that ranks share, against the same layers on one rank: values, logits and gradients.
#include "model/tensor_ranks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "comm/spawn_ranks.h"
#include "kernels/cross_entropy.h"
#include "model/families.h"
#include "model/parameter_io.h"
#include "model/tensor_cross_entropy.h"
#include "model/whole_parameter.h"

namespace penstock::model {
namespace {

using nlohmann::json;

// All layers of a model, on this rank alone or this rank's part, with values that depend on the parameters' names alone.
struct Model {
  explicit Model(const TransformerConfig& config, const TensorRanks* ranks = nullptr) {
    SharedWeights shared;
    for (const LayerSpec& spec : transformer_layers(config, ranks)) layers.push_back(spec.build(shared));
    for (auto& layer : layers) {
      for (Parameter& p : layer->parameters()) {
        if (parameters.contains(p.name)) continue;
        if (p.init_std == 0) p.init_std = 0.3;  // norms and biases that do something
        initialize(p, 3);
        parameters.emplace(p.name, p);
      }
    }
  }
  at::Tensor logits(const at::Tensor& ids) {
    Tensors x{ids};
    for (auto& layer : layers) x = layer->forward(x, {});
    return x.at(0);
  }
  std::vector<std::unique_ptr<Layer>> layers;
  std::map<std::string, Parameter> parameters;
};

struct Case {
  const char* name;
  const char* architecture;
  json more;
};

TransformerConfig config_of(const Case& c) {
  json file = {{"architectures", {c.architecture}}, {"vocab_size", 43}, {"hidden_size", 24}, {"num_hidden_layers", 2}, {"num_attention_heads", 8},
               {"num_key_value_heads", 4}, {"head_dim", 6}, {"intermediate_size", 22}, {"max_position_embeddings", 64}, {"initializer_range", 0.3}};
  file.update(c.more);
  return parse_transformer_config(file.dump(), "config.json").value();
}

// `all`: what `theirs` is a part of; a part may be zero but for rounding, as gradients of GPT-2's key biases are.
void expect_close(const at::Tensor& ours, const at::Tensor& theirs, const at::Tensor& all, const std::string& what) {
  ASSERT_EQ(ours.sizes(), theirs.sizes()) << what;
  EXPECT_LT(((ours - theirs).abs().max() / all.abs().max()).item<double>(), 2e-5) << what;
}

void expect_close(const at::Tensor& ours, const at::Tensor& theirs, const std::string& what) { expect_close(ours, theirs, theirs, what); }

class SharedLayers : public testing::TestWithParam<std::tuple<Case, int>> {};

TEST_P(SharedLayers, GiveTheValuesLogitsAndGradientsOfLayersOnOneRank) {
  const TransformerConfig config = config_of(std::get<0>(GetParam()));
  at::manual_seed(4);
  const at::Tensor ids = at::randint(0, 43, {2, 17}, at::kLong), targets = at::randint(0, 43, {2, 17}, at::kLong);
  Model whole(config);
  const at::Tensor expected = whole.logits(ids);
  kernels::cross_entropy_sum(expected, targets).backward();
  comm::spawn_ranks(std::get<1>(GetParam()), [&](comm::Communicator& group) {
    const TensorRanks ranks(group, seconds(20));
    Model part(config, &ranks);
    const at::Tensor logits = part.logits(ids);
    expect_close(logits, expected, "logits");
    kernels::cross_entropy_sum(logits, targets).backward();
    int64_t cut = 0;
    for (const auto& [name, p] : part.parameters) {
      const Parameter& all = whole.parameters.at(name);
      if (!p.is_cut()) {
        EXPECT_TRUE(p.value.equal(all.value)) << name;
        expect_close(p.value.grad(), all.value.grad(), name);
        continue;
      }
      ++cut;
      const WholeParameter place(p);
      ASSERT_EQ(place.shape(), all.value.sizes().vec()) << name;
      for (size_t i = 0; i < p.stored.size(); ++i) {
        EXPECT_TRUE(place.own(i, p.value).equal(place.part(i, all.value))) << name;
        expect_close(place.own(i, p.value.grad()), place.part(i, all.value.grad()), all.value.grad(), name);
      }
    }
    EXPECT_GE(cut, 9) << "an embedding and four products a layer";
  });
}

INSTANTIATE_TEST_SUITE_P(
    Families, SharedLayers,
    testing::Combine(testing::Values(Case{"llama", "LlamaForCausalLM", {{"attention_bias", true}, {"mlp_bias", true}}}, Case{"mistral", "MistralForCausalLM", json::object()},
                                     Case{"qwen2_tied", "Qwen2ForCausalLM", {{"tie_word_embeddings", true}}}, Case{"qwen3", "Qwen3ForCausalLM", json::object()},
                                     Case{"gpt2", "GPT2LMHeadModel", {{"n_embd", 24}, {"n_layer", 2}, {"n_head", 4}, {"n_positions", 64}}}),
                     testing::Values(2, 4)),
    [](const auto& info) { return std::string(std::get<0>(info.param).name) + "_on_" + std::to_string(std::get<1>(info.param)); });

TEST(SharedCrossEntropy, IsThatOfAllLogitsWithTheirGradients) {
  at::manual_seed(5);
  const at::Tensor logits = at::randn({3, 5, 23}) * 30;
  const at::Tensor targets = at::randint(0, 23, {3, 5}, at::kLong);
  targets[1][2] = -1;
  const at::Tensor all = logits.clone().requires_grad_(true);
  const at::Tensor expected = kernels::cross_entropy_sum(all, targets);
  (expected * 0.5).backward();
  comm::spawn_ranks(3, [&](comm::Communicator& group) {
    const TensorRanks ranks(group, seconds(20), SharedLogits::kOwn);
    const auto offsets = plan::vocab_offsets({23, 3, 3, 3}, 3);
    const int64_t first = offsets[static_cast<size_t>(group.rank())], count = offsets[static_cast<size_t>(group.rank()) + 1] - first;
    const at::Tensor own = logits.narrow(2, first, count).clone().requires_grad_(true);
    const at::Tensor loss = cross_entropy_sum(own, targets, first, ranks);
    EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-4 * expected.item<double>());
    (loss * 0.5).backward();
    EXPECT_LT((own.grad() - all.grad().narrow(2, first, count)).abs().max().item<double>(), 1e-6);
  });
}

TEST(SharedLayersOfFewKeys, RanksThatShareAHeadOfKeysGiveTheSameLogits) {
  const TransformerConfig config = config_of({"", "Qwen3ForCausalLM", {{"num_key_value_heads", 2}}});
  const at::Tensor ids = at::arange(20, at::kLong).unsqueeze(0);
  const at::NoGradGuard no_grad;
  const at::Tensor expected = Model(config).logits(ids);
  comm::spawn_ranks(8, [&](comm::Communicator& group) {
    const at::NoGradGuard here;
    const TensorRanks ranks(group, seconds(20));
    expect_close(Model(config, &ranks).logits(ids), expected, "logits");
  });
}

// What a rank reads of a checkpoint is its part, whichever way the checkpoint holds it.
TEST(CutParameter, ReadsItsPartOfStoredTensors) {
  Parameter p{"qkv", at::empty({4, 3}), {{"q", 0, 2, false, {0, 2, 6}}, {"kv", 2, 3, true, {0, 1, 8}}, {"kv", 3, 4, true, {0, 5, 8}}}};
  const at::Tensor q = at::arange(18, at::kFloat).view({6, 3}), kv = at::arange(100, 124, at::kFloat).view({3, 8});
  const TensorLookup lookup = [&](const std::string& name) { return name == "q" ? q : kv; };
  load_parameter(p, p.value, lookup);
  EXPECT_TRUE(p.value.equal(at::cat({q.narrow(0, 2, 2), kv.t().narrow(0, 1, 1), kv.t().narrow(0, 5, 1)})));

  const WholeParameter whole(p);
  EXPECT_EQ(whole.shape(), (std::vector<int64_t>{14, 3}));
  const Parameter uncut = whole.uncut(at::cat({q, kv.t()}));
  ASSERT_EQ(uncut.stored.size(), 2u);
  for (const auto& [name, part] : stored_parts(uncut, uncut.value)) EXPECT_TRUE(part.equal(lookup(name))) << name;

  Parameter columns{"o", at::empty({3, 2}), {{"q", 0, 3, true, {1, 4, 6}}}};
  load_parameter(columns, columns.value, lookup);
  EXPECT_TRUE(columns.value.equal(q.t().narrow(1, 4, 2)));
  columns.stored[0].cut.whole = 5;
  EXPECT_THROW(load_parameter(columns, columns.value, lookup), Error);
}

}  // namespace
}  // namespace penstock::model
