#include "weights/gguf_weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/temp_dir.h"
#include "formats/gguf_config.h"

namespace penstock::weights {
namespace {

using formats::GgmlType;
using formats::GgufTensor;

formats::GgufMetadata metadata(const std::string& architecture) {
  return {{"general.architecture", formats::gguf_text(architecture)},
          {architecture + ".attention.head_count", formats::gguf_u32(2)},
          {architecture + ".block_count", formats::gguf_u32(1)},
          {architecture + ".context_length", formats::gguf_u32(16)},
          {architecture + ".embedding_length", formats::gguf_u32(32)},
          {architecture + ".feed_forward_length", formats::gguf_u32(8)},
          {architecture + ".attention.layer_norm_rms_epsilon", formats::gguf_f32(1e-5)},
          {architecture + ".attention.layer_norm_epsilon", formats::gguf_f32(1e-5)}};
}

// A file whose tensors hold 0, 1, 2, ... in float32, rounded to their type.
std::filesystem::path write_file(const TempDir& dir, const std::string& architecture, const std::vector<GgufTensor>& tensors) {
  std::string bytes = formats::format_gguf_header(metadata(architecture), tensors);
  for (const GgufTensor& tensor : tensors) {
    int64_t count = 1;
    for (const int64_t size : tensor.shape) count *= size;
    std::vector<float> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    const auto stored = formats::quantize(tensor.type, values);
    bytes.append(reinterpret_cast<const char*>(stored.data()), stored.size());
    bytes.resize(formats::gguf_padded(bytes.size()));
  }
  write_file_atomic(dir.path() / "m.gguf", bytes);
  return dir.path() / "m.gguf";
}

at::Tensor counted(std::vector<int64_t> shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return at::arange(count, at::kFloat).view(shape);
}

TEST(GgufWeights, FloatsAreViewsUnderHuggingFacesNames) {
  const TempDir dir;
  const GgufWeights weights(write_file(dir, "llama", {{"token_embd.weight", GgmlType::kF32, {4, 32}, 0, 0}, {"blk.0.ffn_norm.weight", GgmlType::kBF16, {32}, 0, 0}}));
  EXPECT_EQ(weights.names(), (std::vector<std::string>{"model.embed_tokens.weight", "model.layers.0.post_attention_layernorm.weight"}));
  const at::Tensor table = weights.tensor("model.embed_tokens.weight");
  EXPECT_TRUE(at::equal(table, counted({4, 32})));
  EXPECT_EQ(table.data_ptr(), weights.tensor("model.embed_tokens.weight").data_ptr()) << "a view, not a copy";
  EXPECT_EQ(weights.tensor("model.layers.0.post_attention_layernorm.weight").scalar_type(), at::kBFloat16);
  EXPECT_THROW((void)weights.tensor("lm_head.weight"), Error);
}

TEST(GgufWeights, LlamasRowsOfHeadsAreInHuggingFacesOrder) {
  const TempDir dir;
  const std::vector<GgufTensor> tensors = {{"blk.0.attn_q.weight", GgmlType::kF32, {8, 32}, 0, 0}, {"blk.0.attn_v.weight", GgmlType::kF32, {8, 32}, 0, 0}};
  const at::Tensor order = at::tensor({0, 2, 1, 3, 4, 6, 5, 7}, at::kLong);
  const GgufWeights llama(write_file(dir, "llama", tensors));
  EXPECT_TRUE(at::equal(llama.tensor("model.layers.0.self_attn.q_proj.weight"), counted({8, 32}).index_select(0, order)));
  EXPECT_TRUE(at::equal(llama.tensor("model.layers.0.self_attn.v_proj.weight"), counted({8, 32})));
  const GgufWeights qwen(write_file(dir, "qwen2", tensors));
  EXPECT_TRUE(at::equal(qwen.tensor("model.layers.0.self_attn.q_proj.weight"), counted({8, 32})));
}

TEST(GgufWeights, BlocksOfIntegersAreTheirValuesAndGpt2sMatricesAreTurned) {
  const TempDir dir;
  const GgufWeights weights(write_file(dir, "gpt2", {{"blk.0.ffn_up.weight", GgmlType::kQ8_0, {40, 64}, 0, 0}, {"blk.0.ffn_up.bias", GgmlType::kF32, {40}, 0, 0}}));
  const at::Tensor matrix = weights.tensor("transformer.h.0.mlp.c_fc.weight");
  ASSERT_EQ(matrix.sizes(), (at::IntArrayRef{64, 40}));
  EXPECT_LT((matrix.t() - counted({40, 64})).abs().max().item<float>(), 2560.0F / 127 / 2 + 2);
  EXPECT_TRUE(at::equal(weights.tensor("transformer.h.0.mlp.c_fc.bias"), counted({40})));
  EXPECT_EQ(weights.block_type("transformer.h.0.mlp.c_fc.weight"), GgmlType::kQ8_0);
  EXPECT_EQ(weights.block_type("transformer.h.0.mlp.c_fc.bias"), std::nullopt) << "floats";
  EXPECT_EQ(weights.block_type("none"), std::nullopt);
}

TEST(GgufWeights, ATensorOfAnotherKindOfModelIsNamed) {
  const TempDir dir;
  try {
    const GgufWeights weights(write_file(dir, "llama", {{"blk.0.ffn_gate_exps.weight", GgmlType::kF32, {2, 4, 8}, 0, 0}}));
    FAIL();
  } catch (const Error& failed) {
    EXPECT_EQ(failed.code(), Code::kUnimplemented);
    EXPECT_NE(failed.message().find("tensor 'blk.0.ffn_gate_exps.weight' has no place in architecture llama"), std::string::npos) << failed.message();
  }
}

TEST(ModelFiles, AGgufFileHasAConfigurationToo) {
  const TempDir dir;
  const auto file = write_file(dir, "llama", {{"token_embd.weight", GgmlType::kF32, {4, 32}, 0, 0}});
  EXPECT_EQ(read_config_json(file)["vocab_size"], 4);
  EXPECT_EQ(read_config_json(dir.path())["architectures"][0], "LlamaForCausalLM") << "a folder with one GGUF file";
  EXPECT_EQ(config_name(file), file.string());
  EXPECT_TRUE(open_model_files(dir.path())->has("model.embed_tokens.weight"));
}

}  // namespace
}  // namespace penstock::weights
