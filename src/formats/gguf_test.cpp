// GGUF files: their bytes, block types against vectors computed by hand, names and places of tensors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/temp_dir.h"
#include "formats/gguf_config.h"
#include "formats/gguf_model.h"

namespace penstock::formats {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

std::vector<float> values_of(GgmlType type, std::span<const std::byte> blocks) {
  std::vector<float> values(blocks.size() / block_bytes(type) * static_cast<size_t>(block_values(type)));
  dequantize(type, blocks, values);
  return values;
}

// 0x3800 is 0.5, 0x3C00 is 1, 0x4000 is 2, 0xB800 is -0.5 in half precision.
TEST(GgmlTypes, FloatsOfEveryWidth) {
  EXPECT_THAT(values_of(GgmlType::kF16, bytes_of({0x00, 0x38, 0x00, 0xC0, 0x01, 0x00, 0x00, 0x7C, 0xFF, 0x7B})), ElementsAre(0.5F, -2.0F, 0x1p-24F, INFINITY, 65504.0F));
  EXPECT_THAT(values_of(GgmlType::kBF16, bytes_of({0x80, 0x3F, 0x20, 0xC1})), ElementsAre(1.0F, -10.0F));
  EXPECT_THAT(values_of(GgmlType::kF32, bytes_of({0, 0, 0x80, 0x3F})), ElementsAre(1.0F));
}

TEST(GgmlTypes, Q8_0IsAScaleAndSignedBytes) {
  std::vector<std::byte> block(34);
  block[1] = std::byte{0x38};  // d = 0.5
  block[2] = static_cast<std::byte>(-128);
  block[3] = std::byte{127};
  block[33] = std::byte{3};
  const auto values = values_of(GgmlType::kQ8_0, block);
  EXPECT_EQ(values[0], -64);
  EXPECT_EQ(values[1], 63.5);
  EXPECT_EQ(values[2], 0);
  EXPECT_EQ(values[31], 1.5);
}

TEST(GgmlTypes, Q4_0AndQ4_1HaveTheLowerNibblesFirst) {
  std::vector<std::byte> block(18);
  block[1] = std::byte{0x40};  // d = 2
  block[2] = std::byte{0xF1};  // values 0 and 16
  block[17] = std::byte{0x8A};
  auto values = values_of(GgmlType::kQ4_0, block);
  EXPECT_EQ(values[0], 2 * (1 - 8));
  EXPECT_EQ(values[16], 2 * (15 - 8));
  EXPECT_EQ(values[15], 2 * (10 - 8));
  EXPECT_EQ(values[31], 0);
  block.assign(20, std::byte{0});
  block[1] = std::byte{0x40};  // d = 2
  block[3] = std::byte{0xB8};  // m = -0.5
  block[4] = std::byte{0xF1};
  values = values_of(GgmlType::kQ4_1, block);
  EXPECT_EQ(values[0], 1.5);
  EXPECT_EQ(values[16], 29.5);
  EXPECT_EQ(values[1], -0.5);
}

TEST(GgmlTypes, Q4_KHasSixBitScalesAndMinimaForRunsOf32) {
  std::vector<std::byte> block(144);
  block[1] = std::byte{0x40};                     // d = 2
  block[3] = std::byte{0x38};                     // dmin = 0.5
  block[4 + 0] = std::byte{0xC0 | 5};             // scale 0 = 5; upper bits of scale 4 = 3
  block[4 + 1] = std::byte{7};                    // scale 1 = 7
  block[4 + 4] = std::byte{0x80 | 6};             // minimum 0 = 6; upper bits of minimum 4 = 2
  block[4 + 8] = std::byte{0x21};                 // scale 4 = 1 + 3 * 16 = 49, minimum 4 = 2 + 2 * 16 = 34
  block[16] = std::byte{0x93};                    // value 0 = 3, value 32 = 9
  block[16 + 64 + 31] = std::byte{0x0E};          // value 128 + 31 = 14
  const auto values = values_of(GgmlType::kQ4_K, block);
  EXPECT_EQ(values[0], 2 * 5 * 3 - 0.5 * 6);
  EXPECT_EQ(values[1], -0.5 * 6);
  EXPECT_EQ(values[32], 2 * 7 * 9);
  EXPECT_EQ(values[33], 0);
  EXPECT_EQ(values[128], -0.5 * 34);
  EXPECT_EQ(values[159], 2 * 49 * 14 - 0.5 * 34);
}

TEST(GgmlTypes, Q5_0AndQ5_1HaveTheFifthBitsByThemselves) {
  std::vector<std::byte> block(22);
  block[1] = std::byte{0x40};                // d = 2
  block[2] = std::byte{0x01};                // fifth bit of value 0
  block[2 + 3] = std::byte{0x80};            // of value 31
  block[2 + 2] = std::byte{0x01};            // of value 16
  block[6] = std::byte{0xF1};                // values 0 and 16
  block[6 + 15] = std::byte{0x8A};           // values 15 and 31
  auto values = values_of(GgmlType::kQ5_0, block);
  EXPECT_EQ(values[0], 2 * (17 - 16));
  EXPECT_EQ(values[16], 2 * (31 - 16));
  EXPECT_EQ(values[15], 2 * (10 - 16));
  EXPECT_EQ(values[31], 2 * (24 - 16));
  EXPECT_EQ(values[1], 2 * -16);
  block.insert(block.begin() + 2, {std::byte{0}, std::byte{0xB8}});  // m = -0.5
  values = values_of(GgmlType::kQ5_1, block);
  EXPECT_EQ(values[0], 2 * 17 - 0.5);
  EXPECT_EQ(values[16], 2 * 31 - 0.5);
  EXPECT_EQ(values[31], 2 * 24 - 0.5);
  EXPECT_EQ(values[1], -0.5);
}

TEST(GgmlTypes, Q5_KHasAByteOfFifthBitsForAPlaceInEachRun) {
  std::vector<std::byte> block(176);
  block[1] = std::byte{0x40};                // d = 2
  block[3] = std::byte{0x38};                // dmin = 0.5
  for (size_t part = 0; part < 4; ++part) block[4 + part] = std::byte{5};  // scales
  block[4 + 4] = std::byte{6};               // minimum 0
  block[16] = std::byte{0b10};               // fifth bit of value 32
  block[16 + 31] = std::byte{0b101};         // of values 31 and 64 + 31
  block[48] = std::byte{0x93};               // value 0 = 3, value 32 = 9
  block[48 + 32 + 31] = std::byte{0x0E};     // value 64 + 31 = 14
  const auto values = values_of(GgmlType::kQ5_K, block);
  EXPECT_EQ(values[0], 2 * 5 * 3 - 0.5 * 6);
  EXPECT_EQ(values[32], 2 * 5 * 25);
  EXPECT_EQ(values[31], 2 * 5 * 16 - 0.5 * 6);
  EXPECT_EQ(values[95], 2 * 5 * 30);
  EXPECT_EQ(values[64], 0);
}

TEST(GgmlTypes, Q6_KJoinsNibblesAndPairsOfBits) {
  std::vector<std::byte> block(210);
  block[209] = std::byte{0x38};                 // d = 0.5
  block[0] = std::byte{0x5A};                   // lower bits: value 0 = 10, value 64 = 5
  block[128] = std::byte{0b11'10'01'10};        // upper bits of values 0, 32, 64, 96: 2, 1, 2, 3
  block[192 + 0] = std::byte{4};                // of values 0 ... 15
  block[192 + 2] = static_cast<std::byte>(-3);  // of values 32 ... 47
  block[192 + 4] = std::byte{1};
  block[192 + 6] = std::byte{2};
  block[192 + 15] = std::byte{8};               // of values 240 ... 255
  const auto values = values_of(GgmlType::kQ6_K, block);
  EXPECT_EQ(values[0], 0.5 * 4 * (10 + 2 * 16 - 32));
  EXPECT_EQ(values[1], 0.5 * 4 * -32);
  EXPECT_EQ(values[32], 0.5 * -3 * (1 * 16 - 32));
  EXPECT_EQ(values[64], 0.5 * 1 * (5 + 2 * 16 - 32));
  EXPECT_EQ(values[96], 0.5 * 2 * (3 * 16 - 32));
  EXPECT_EQ(values[255], 0.5 * 8 * -32);
  EXPECT_EQ(values[16], 0);
}

TEST(GgmlTypes, WhatIsQuantizedIsWithinHalfAStep) {
  std::vector<float> values(64);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i)) * (i < 32 ? 1.0F : 0.01F);
  for (const auto& [type, steps] : {std::pair{GgmlType::kQ8_0, 127.0F}, std::pair{GgmlType::kQ4_0, 8.0F}}) {
    const auto back = values_of(type, quantize(type, values));
    for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(back[i], values[i], (i < 32 ? 1.0F : 0.01F) / steps * 1.01F) << ggml_type_name(type) << " " << i;
  }
  EXPECT_EQ(quantize(GgmlType::kQ8_0, std::vector<float>(32)), std::vector<std::byte>(34));
  EXPECT_EQ(values_of(GgmlType::kQ4_0, quantize(GgmlType::kQ4_0, std::vector<float>(32, -3.0F))), std::vector<float>(32, -3.0F));
}

GgufTensor tensor(const std::string& name, GgmlType type, std::vector<int64_t> shape) { return {name, type, std::move(shape), 0, 0}; }

std::string file_of(const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors) {
  std::string file = format_gguf_header(metadata, tensors);
  for (const GgufTensor& t : tensors) file.resize(file.size() + gguf_padded(gguf_bytes(t)), '\1');
  return file;
}

GgufHeader parse(const std::string& file) { return parse_gguf(std::as_bytes(std::span(file.data(), file.size())), "x.gguf"); }

std::string refusal(const std::string& file) {
  try {
    (void)parse(file);
    return "";
  } catch (const Error& failed) {
    EXPECT_TRUE(failed.code() == Code::kDataLoss || failed.code() == Code::kUnimplemented);
    return failed.message();
  }
}

GgufMetadata some_metadata() {
  return {{"general.architecture", gguf_text("llama")}, {"a.u32", gguf_u32(7)},       {"a.f32", gguf_f32(1e-5F)},
          {"a.bool", gguf_bool(true)},                  {"a.texts", gguf_texts({"x", ""})}, {"a.reals", gguf_f32s({0.5, -2})},
          {"a.integers", gguf_i32s({-1, 2})},           {"a.long", {GgufKind::kI64, {}, int64_t{-5}}}, {"a.byte", {GgufKind::kU8, {}, int64_t{200}}}};
}

std::vector<GgufTensor> some_tensors() { return {tensor("a.weight", GgmlType::kF32, {2, 3}), tensor("b", GgmlType::kQ8_0, {5, 64}), tensor("c", GgmlType::kBF16, {7})}; }

TEST(GgufFile, WhatIsWrittenReadsBack) {
  const GgufHeader header = parse(file_of(some_metadata(), some_tensors()));
  EXPECT_EQ(*header.text("general.architecture"), "llama");
  EXPECT_EQ(header.integer("a.u32", 0, 10), 7);
  EXPECT_EQ(header.real("a.f32"), 1e-5) << "the decimal number, not the float32 next to it";
  EXPECT_EQ(header.boolean("a.bool"), true);
  EXPECT_THAT(*header.texts("a.texts"), ElementsAre("x", ""));
  EXPECT_THAT(*header.reals("a.reals"), ElementsAre(0.5, -2));
  EXPECT_THAT(*header.integers("a.integers"), ElementsAre(-1, 2));
  EXPECT_EQ(header.integer("a.long", -9, 9), -5);
  EXPECT_EQ(header.integer("a.byte", 0, 255), 200);
  EXPECT_EQ(header.find("a.nothing"), nullptr);
  EXPECT_EQ(header.integer("a.nothing", 0, 1), std::nullopt);
  ASSERT_EQ(header.tensors.size(), 3U);
  EXPECT_THAT(header.tensors[1].shape, ElementsAre(5, 64));
  EXPECT_EQ(header.tensors[1].end - header.tensors[1].begin, 5U * 2 * 34);
  EXPECT_EQ(header.tensors[2].begin, header.tensors[0].begin + 32 + 352);
  EXPECT_EQ(header.tensors[0].begin % 32, 0U);
}

TEST(GgufFile, AWrongKindIsNamedWithItsKey) {
  const GgufHeader header = parse(file_of(some_metadata(), {}));
  const auto complaint = [](auto read) {
    try {
      (void)read();
    } catch (const Error& failed) {
      return failed.message();
    }
    return std::string();
  };
  EXPECT_EQ(complaint([&] { return header.integer("a.u32", 0, 6); }), "x.gguf: a.u32: expected an integer from 0 to 6, found 7");
  EXPECT_EQ(complaint([&] { return header.text("a.bool"); }), "x.gguf: a.bool: expected a text, found true");
  EXPECT_EQ(complaint([&] { return header.reals("a.integers"); }), "x.gguf: a.integers: expected a list of real numbers, found a list");
}

TEST(GgufFile, EveryKindOfBadFileIsRefusedWithItsReason) {
  const std::string good = file_of({{"k", gguf_u32(1)}}, {tensor("t", GgmlType::kF32, {2})});
  ASSERT_EQ(refusal(good), "");
  const auto with = [&](size_t at, std::initializer_list<int> bytes) {
    std::string file = good;
    for (const int byte : bytes) file[at++] = static_cast<char>(byte);
    return refusal(file);
  };
  // 0 magic, 4 version, 8 tensors, 16 keys, 24 key length, 32 key, 33 kind, 37 value; 41 name length, 49 name, 50 dims, 54 size, 62 type, 66 offset.
  EXPECT_THAT(with(0, {'X'}), HasSubstr("it is no GGUF file"));
  EXPECT_THAT(with(4, {1}), HasSubstr("version 1 is not supported"));
  EXPECT_THAT(with(4, {0, 0, 0, 3}), HasSubstr("big-endian"));
  EXPECT_THAT(with(15, {1}), HasSubstr("tensors, but only"));
  EXPECT_THAT(with(23, {0x7F}), HasSubstr("keys of metadata, but only"));
  EXPECT_THAT(with(26, {2}), HasSubstr("a text of 131073 bytes"));
  EXPECT_THAT(with(32, {0xFF}), HasSubstr("empty or no UTF-8"));
  EXPECT_THAT(with(33, {13}), HasSubstr("value type 13"));
  EXPECT_THAT(with(33, {7, 0, 0, 0, 2}), HasSubstr("expected true (1) or false (0), found 2"));
  EXPECT_THAT(with(33, {9, 0, 0, 0, 9}), HasSubstr("lists of lists"));
  EXPECT_THAT(with(50, {5}), HasSubstr("tensor 't': 5 dims; expected 1 to 4"));
  EXPECT_THAT(with(54, {0}), HasSubstr("tensor 't': a dim of size 0"));
  EXPECT_THAT(with(61, {0x80}), HasSubstr("tensor 't': a dim of size"));
  EXPECT_THAT(with(61, {0x7F}), HasSubstr("the impossible shape"));
  EXPECT_THAT(with(54, {9}), HasSubstr("takes 36 bytes from data byte 0 on, but the file holds 32"));
  EXPECT_THAT(with(62, {10}), HasSubstr("tensor 't' has type Q2_K; this version reads F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K"));
  EXPECT_THAT(with(62, {99}), HasSubstr("tensor 't' has type 99"));
  EXPECT_THAT(with(62, {8}), HasSubstr("rows that are no multiple of 32 values"));
  EXPECT_THAT(with(66, {8}), HasSubstr("begins at data byte 8; expected a multiple of 32"));
  EXPECT_THAT(with(66, {32}), HasSubstr("truncated"));
  EXPECT_THAT(refusal(file_of({{"k", gguf_u32(1)}, {"k", gguf_u32(1)}}, {})), HasSubstr("'k' is given twice"));
  EXPECT_THAT(refusal(file_of({}, {tensor("t", GgmlType::kF32, {2}), tensor("t", GgmlType::kF32, {2})})), HasSubstr("tensor 't': it is listed twice"));
  EXPECT_THAT(refusal(file_of({{"general.alignment", gguf_u32(24)}}, {})), HasSubstr("general.alignment: expected a power of two, found 24"));
}

TEST(GgufFile, TensorsThatOverlapAreRefused) {
  std::string file = format_gguf_header({}, {tensor("t", GgmlType::kF32, {16}), tensor("u", GgmlType::kF32, {16})});
  const size_t data = file.size();
  file.resize(data + 128);
  const size_t offset_of_u = data - 1 - 8;  // the last offset stands before the padding; find it by its value
  size_t at = offset_of_u;
  while (file[at] != 64) --at;
  file[at] = 32;
  EXPECT_THAT(refusal(file), HasSubstr("tensors 't' and 'u' overlap"));
}

TEST(GgufFile, EveryTruncationIsRefusedAndEveryFlippedBitIsRefusedOrStillReadable) {
  const std::string whole = file_of(some_metadata(), {tensor("c", GgmlType::kF32, {8})});
  ASSERT_EQ(refusal(whole), "");
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_NE(refusal(whole.substr(0, size)), "") << "cut to " << size << " bytes";
  for (size_t bit = 0; bit < (whole.size() - 32) * 8; ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    if (!refusal(flipped).empty()) continue;
    for (const GgufTensor& t : parse(flipped).tensors) EXPECT_LE(t.end, flipped.size());
  }
}

TEST(GgufNames, GoBothWays) {
  const GgufShape llama{"llama", 4, 2}, qwen{"qwen3", 4, 2}, gpt2{"gpt2", 4, 4};
  const auto q = gguf_place(llama, "model.layers.12.self_attn.q_proj.weight");
  EXPECT_EQ(q->name, "blk.12.attn_q.weight");
  EXPECT_EQ(q->num_heads, 4);
  EXPECT_EQ(gguf_place(llama, "model.layers.0.self_attn.k_proj.bias")->num_heads, 2);
  EXPECT_EQ(gguf_place(llama, "model.layers.0.self_attn.v_proj.weight")->num_heads, 0);
  EXPECT_EQ(gguf_place(qwen, "model.layers.12.self_attn.q_proj.weight")->num_heads, 0);
  EXPECT_TRUE(gguf_place(gpt2, "transformer.h.3.attn.c_attn.weight")->transposed);
  EXPECT_FALSE(gguf_place(gpt2, "transformer.h.3.attn.c_attn.bias")->transposed);
  EXPECT_EQ(gguf_place(llama, "model.layers.0.rotary_emb.inv_freq"), std::nullopt);
  EXPECT_EQ(hugging_face_name(llama, "blk.12.ffn_gate.weight"), "model.layers.12.mlp.gate_proj.weight");
  EXPECT_EQ(hugging_face_name(gpt2, "output_norm.bias"), "transformer.ln_f.bias");
  EXPECT_EQ(hugging_face_name(llama, "blk.0.ffn_gate_exps.weight"), std::nullopt);
}

TEST(GgufNames, LlamasRowsOfAHeadAreItsPairs) {
  const auto rows = bytes_of({0, 1, 2, 3, 10, 11, 12, 13});  // of two heads of four: pairs (0, 2), (1, 3)
  const auto llama = rows_to_llama(rows, 8, 2);
  EXPECT_EQ(llama, bytes_of({0, 2, 1, 3, 10, 12, 11, 13}));
  EXPECT_EQ(rows_from_llama(llama, 8, 2), rows);
}

TEST(GgufConfig, AConfigurationSurvivesTheWayThroughAFile) {
  const nlohmann::json llama = {{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}, {"vocab_size", 40}, {"hidden_size", 64}, {"num_hidden_layers", 2},
                                {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"head_dim", 32}, {"intermediate_size", 20}, {"max_position_embeddings", 131072},
                                {"rms_norm_eps", 1e-5}, {"rope_theta", 500000.0}, {"hidden_act", "silu"},
                                {"rope_scaling", {{"rope_type", "llama3"}, {"factor", 32.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}}}};
  const GgufConfig written = gguf_of_config(llama.dump(), "config.json");
  EXPECT_EQ(written.rope_factors.size(), 16U);
  const GgufHeader header = parse(file_of(written.metadata, {tensor("token_embd.weight", GgmlType::kF16, {40, 64})}));
  const auto back = nlohmann::json::parse(config_of_gguf(header, written.rope_factors));
  for (const auto& [key, value] : llama.items()) EXPECT_EQ(back.at(key), value) << key;
  EXPECT_EQ(back.at("tie_word_embeddings"), true);
  EXPECT_EQ(back.at("torch_dtype"), "float16");
  std::vector<float> others = written.rope_factors;
  others[10] *= 1.01F;
  EXPECT_THROW((void)config_of_gguf(header, others), Error);
}

TEST(GgufConfig, WhatWeDoNotComputeIsRefusedByName) {
  GgufMetadata metadata = {{"general.architecture", gguf_text("llama")}, {"llama.block_count", gguf_u32(1)}, {"llama.context_length", gguf_u32(8)},
                           {"llama.embedding_length", gguf_u32(8)}, {"llama.feed_forward_length", gguf_u32(8)}, {"llama.attention.head_count", gguf_u32(2)},
                           {"llama.attention.layer_norm_rms_epsilon", gguf_f32(1e-5)}};
  const auto complaint = [&](const char* key, GgufValue value) {
    GgufMetadata changed = metadata;
    std::erase_if(changed, [&](const auto& entry) { return entry.first == key; });
    changed.emplace_back(key, std::move(value));
    try {
      (void)config_of_gguf(parse(file_of(changed, {tensor("token_embd.weight", GgmlType::kF32, {4, 8})})), {});
    } catch (const Error& failed) {
      return failed.message();
    }
    return std::string();
  };
  EXPECT_EQ(complaint("llama.unknown", gguf_u32(1)), "");
  EXPECT_THAT(complaint("general.architecture", gguf_text("gemma")), HasSubstr("architecture 'gemma' is not supported; this version knows gpt2, llama, qwen2, qwen3"));
  EXPECT_THAT(complaint("llama.expert_count", gguf_u32(8)), HasSubstr("a mixture of experts is not supported"));
  EXPECT_THAT(complaint("llama.feed_forward_length", gguf_i32s({8})), HasSubstr("llama.feed_forward_length: a number for each block"));
  EXPECT_THAT(complaint("llama.rope.dimension_count", gguf_u32(2)), HasSubstr("rotating a part of the head"));
  EXPECT_THAT(complaint("llama.rope.scaling.type", gguf_text("longrope")), HasSubstr("llama.rope.scaling.type: 'longrope' is not supported"));
  EXPECT_THAT(complaint("llama.rope.scaling.type", gguf_text("linear")), HasSubstr("llama.rope.scaling.factor"));
  EXPECT_THAT(complaint("llama.block_count", gguf_u32(0)), HasSubstr("llama.block_count: expected an integer from 1"));
}

TEST(FindGguf, TakesAFileOrAFolderWithOne) {
  const TempDir dir;
  EXPECT_EQ(find_gguf(dir.path()), std::nullopt);
  write_file_atomic(dir.path() / "a.gguf", "");
  EXPECT_EQ(find_gguf(dir.path()), dir.path() / "a.gguf");
  EXPECT_EQ(find_gguf(dir.path() / "a.gguf"), dir.path() / "a.gguf");
  write_file_atomic(dir.path() / "b.gguf", "");
  EXPECT_THROW((void)find_gguf(dir.path()), Error);
  write_file_atomic(dir.path() / "config.json", "{}");
  EXPECT_EQ(find_gguf(dir.path()), std::nullopt);
}

}  // namespace
}  // namespace penstock::formats
