// config.json of every family, its options, and what is refused.
#include "model/families.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

namespace penstock::model {
namespace {

using nlohmann::json;

json llama() {
  return {{"architectures", {"LlamaForCausalLM"}}, {"vocab_size", 32}, {"hidden_size", 16}, {"num_hidden_layers", 2}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"intermediate_size", 24}, {"rms_norm_eps", 1e-5}, {"eos_token_id", {7, 9}}, {"max_position_embeddings", 64}};
}

// GPT-2's own names of the same sizes.
json gpt2_names() { return {{"n_embd", 16}, {"n_layer", 2}, {"n_head", 4}, {"n_inner", 24}, {"n_positions", 64}}; }

json of(const char* architecture, const json& more = json::object()) {
  json config = llama();
  config["architectures"] = {architecture};
  config.update(gpt2_names());  // others do not look at these
  config.update(more);
  return config;
}

TransformerConfig parse(const json& config) { return parse_transformer_config(config.dump(), "config.json").value(); }

Error error_of(const json& config) {
  const auto parsed = parse_transformer_config(config.is_string() ? config.get<std::string>() : config.dump(), "config.json");
  return parsed.ok() ? error(Code::kInternal, "no error") : parsed.error();
}

std::string message_of(const json& more) {
  json config = llama();
  config.update(more);
  return error_of(config).message();
}

TEST(Families, ReadWhatHuggingFaceWritesAndFillInWhatIsAbsent) {
  const TransformerConfig c = parse(llama());
  EXPECT_EQ(c.head_size, 4);
  EXPECT_EQ(c.num_kv_heads, 2);
  EXPECT_EQ(c.eos_token_id, 7);
  EXPECT_EQ(c.rope_theta, 10000);
  EXPECT_FALSE(c.tie_word_embeddings || c.qkv_bias || c.attention_out_bias || c.mlp_bias || c.qk_norm);
  json by_type = llama();
  by_type.erase("architectures");
  by_type["model_type"] = "llama";
  EXPECT_EQ(parse(by_type).architecture, "LlamaForCausalLM");
}

TEST(Families, DifferInBiasesNormsAndHeads) {
  const TransformerConfig biased = parse(of("LlamaForCausalLM", {{"attention_bias", true}, {"mlp_bias", true}}));
  EXPECT_TRUE(biased.qkv_bias && biased.attention_out_bias && biased.mlp_bias);
  const TransformerConfig qwen2 = parse(of("Qwen2ForCausalLM"));
  EXPECT_TRUE(qwen2.qkv_bias && !qwen2.attention_out_bias && !qwen2.qk_norm);
  const TransformerConfig qwen3 = parse(of("Qwen3ForCausalLM"));
  EXPECT_TRUE(!qwen3.qkv_bias && qwen3.qk_norm);
  EXPECT_EQ(qwen3.head_size, 128) << "the default of transformers";
  const TransformerConfig mistral = parse(of("MistralForCausalLM", {{"head_dim", 32}}));
  EXPECT_EQ(mistral.head_size, 32);
  EXPECT_EQ(mistral.num_kv_heads, 2);
}

TEST(Families, ReadGpt2ByItsOwnNames) {
  const TransformerConfig c = parse(of("GPT2LMHeadModel", {{"n_inner", nullptr}}));
  EXPECT_EQ(c.head_size, 4);
  EXPECT_EQ(c.num_kv_heads, 4);
  EXPECT_EQ(c.intermediate_size, 64) << "four times the width";
  EXPECT_TRUE(c.tie_word_embeddings) << "the default of transformers";
  EXPECT_EQ(error_of(of("GPT2LMHeadModel", {{"activation_function", "relu"}})).code(), Code::kUnimplemented);
  EXPECT_EQ(error_of(of("GPT2LMHeadModel", {{"scale_attn_by_inverse_layer_idx", true}})).code(), Code::kUnimplemented);
  EXPECT_NE(error_of(of("GPT2LMHeadModel", {{"n_head", 3}})).message().find("n_embd 16 / n_head 3"), std::string::npos);
}

TEST(Families, BoundTheSequenceByAWindowThatSlides) {
  EXPECT_EQ(parse(of("LlamaForCausalLM", {{"max_position_embeddings", 2048.0}, {"hidden_act", "swish"}})).max_position_embeddings, 2048);
  const json window = {{"max_position_embeddings", 8192}};
  EXPECT_EQ(parse(of("MistralForCausalLM", window)).max_sequence(), 4096) << "the default of transformers";
  EXPECT_EQ(parse(of("MistralForCausalLM", {{"max_position_embeddings", 8192}, {"sliding_window", nullptr}})).max_sequence(), 8192);
  EXPECT_EQ(parse(of("Qwen2ForCausalLM", {{"max_position_embeddings", 8192}, {"sliding_window", 64}, {"use_sliding_window", false}})).max_sequence(), 8192);
  EXPECT_EQ(parse(of("Qwen2ForCausalLM", {{"max_position_embeddings", 8192}, {"sliding_window", 64}, {"use_sliding_window", true}, {"max_window_layers", 1}})).max_sequence(), 64);
}

TEST(Families, SurviveARoundTrip) {
  TransformerConfig c = parse(llama());
  c.tie_word_embeddings = true;
  c.rope_theta = 500000;
  const TransformerConfig again = parse_transformer_config(to_config_json(c), "again").value();
  EXPECT_EQ(to_config_json(again), to_config_json(c));
  EXPECT_EQ(num_parameters(again), num_parameters(c));
}

TEST(Families, NameTheKeyThatIsWrong) {
  EXPECT_EQ(message_of({{"vocab_size", "many"}}), "config.json: key 'vocab_size': expected an integer from 1 to 16777216, found \"many\"");
  EXPECT_EQ(message_of({{"hidden_size", 18446744073709551615ull}}), "config.json: key 'hidden_size': expected an integer from 1 to 16777216, found 18446744073709551615");
  EXPECT_NE(message_of({{"num_key_value_heads", 3}}).find("num_attention_heads 4 is not a multiple of num_key_value_heads 3"), std::string::npos);
  EXPECT_NE(message_of({{"head_dim", 3}}).find("head size 3"), std::string::npos);
  EXPECT_NE(message_of({{"rms_norm_eps", -1}}).find("'rms_norm_eps': expected a number > 0, found -1"), std::string::npos);
  EXPECT_NE(message_of({{"tie_word_embeddings", "no"}}).find("'tie_word_embeddings': expected true or false"), std::string::npos);
  EXPECT_NE(error_of({{"model_type", "llama"}}).message().find("'vocab_size' is missing"), std::string::npos);
  EXPECT_NE(error_of(json::object()).message().find("neither 'architectures' nor 'model_type'"), std::string::npos);
  EXPECT_EQ(error_of("[1, 2").message(), "config.json: not a JSON object");
  // Python writes these; they are not JSON.
  EXPECT_EQ(error_of(R"({"model_type": "llama", "rms_norm_eps": NaN})").message(), "config.json: not a JSON object");
  EXPECT_EQ(error_of(R"({"model_type": "llama", "rms_norm_eps": 1e999})").message(), "config.json: not a JSON object");
}

TEST(Families, RefuseWhatTheyDoNotComputeByName) {
  const auto refuses = [](const json& more, const std::string& what) {
    json config = llama();
    config.update(more);
    const Error e = error_of(config);
    EXPECT_EQ(e.code(), Code::kUnimplemented) << more;
    EXPECT_NE(e.message().find(what), std::string::npos) << e.message();
  };
  refuses({{"architectures", {"MambaForCausalLM"}}}, "architecture \"MambaForCausalLM\" is not supported; this version knows LlamaForCausalLM");
  refuses({{"hidden_act", "gelu"}}, "hidden_act = \"gelu\"");
  refuses({{"quantization_config", {{"quant_method", "gptq"}}}}, "gptq");
  refuses({{"partial_rotary_factor", 0.5}}, "partial_rotary_factor = 0.5");
  refuses({{"rope_scaling", {{"type", "longrope"}, {"long_factor", {1, 2}}}}}, "\"longrope\"");
  refuses({{"rope_scaling", {{"type", "linear"}, {"factor", 2}, {"mrope_section", {1, 2}}}}}, "'rope_scaling.mrope_section'");
  refuses({{"rope_scaling", {{"type", "dynamic"}, {"factor", 2}, {"original_max_position_embeddings", 32}}}}, "dynamic rope_scaling from 32 to 64");
}

TEST(RopeScaling, IsReadFromEitherKeyAndChecked) {
  EXPECT_NE(message_of({{"rope_scaling", {{"type", "linear"}}}}).find("'rope_scaling.factor' is missing"), std::string::npos);
  EXPECT_NE(message_of({{"rope_scaling", "linear"}}).find("'rope_scaling': expected an object"), std::string::npos);
  EXPECT_NE(message_of({{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}}}).find("must be more than"), std::string::npos);
  const TransformerConfig c = parse(of("LlamaForCausalLM", {{"rope_parameters", {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 5000.0}}}}));
  EXPECT_EQ(c.rope_theta, 5000);
  EXPECT_EQ(c.rope_scaling.kind, RopeScaling::Kind::kLinear);
  EXPECT_EQ(c.rope_scaling.factor, 4);
}

TEST(RopeScaling, LinearDividesEveryFrequencyAndDynamicNone) {
  const auto plain = kernels::rotary_frequencies(8, 10000);
  const auto linear = scaled_frequencies({.kind = RopeScaling::Kind::kLinear, .factor = 4}, 8, 10000);
  const auto dynamic = scaled_frequencies({.kind = RopeScaling::Kind::kDynamic, .factor = 4}, 8, 10000);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_DOUBLE_EQ(linear.frequencies[i], plain[i] / 4);
    EXPECT_DOUBLE_EQ(dynamic.frequencies[i], plain[i]);
    EXPECT_DOUBLE_EQ(plain[i], std::pow(10000, -static_cast<double>(i) / 4));
  }
}

// Of Llama 3.1: theta 500000, heads of 128, factor 8, 1 and 4 of 8192.
TEST(RopeScaling, Llama3KeepsShortWavelengthsAndDividesLongOnes) {
  const RopeScaling scaling{.kind = RopeScaling::Kind::kLlama3, .factor = 8, .original_length = 8192, .low_freq_factor = 1, .high_freq_factor = 4};
  const auto plain = kernels::rotary_frequencies(128, 500000);
  const auto scaled = scaled_frequencies(scaling, 128, 500000);
  EXPECT_EQ(scaled.scale, 1);
  int kept = 0, divided = 0;
  for (size_t i = 0; i < 64; ++i) {
    const double wavelength = 2 * M_PI / plain[i], share = scaled.frequencies[i] / plain[i];
    const double low = wavelength > 8192 ? 0.125 : 0, high = wavelength > 8192 ? 0.125 : 1;
    EXPECT_TRUE(wavelength < 2048 ? share == 1 : low <= share && share <= high) << i;
    EXPECT_LE(share, i > 0 ? scaled.frequencies[i - 1] / plain[i - 1] : 1);
    kept += share == 1;
    divided += share == 0.125;
  }
  EXPECT_EQ(kept, 29);
  EXPECT_EQ(divided, 29);
}

// The ramp runs over the pairs that turn 32 times and once over 4096 positions: pairs 20.94 and 45.03 of a head of 128, rounded outwards to 20 and 46.
TEST(RopeScaling, YarnBlendsBetweenTurnsAndWarmsTheScores) {
  const RopeScaling scaling{.kind = RopeScaling::Kind::kYarn, .factor = 16, .original_length = 4096};
  const auto plain = kernels::rotary_frequencies(128, 10000);
  const auto scaled = scaled_frequencies(scaling, 128, 10000);
  EXPECT_DOUBLE_EQ(scaled.scale, 0.1 * std::log(16) + 1);
  const auto share = [&](size_t i) { return scaled.frequencies[i] / plain[i]; };
  EXPECT_DOUBLE_EQ(share(20), 1);
  EXPECT_LT(share(21), 1);
  EXPECT_NEAR(share(33), 0.5 + 0.5 / 16, 1e-12) << "half-way";
  EXPECT_GT(share(45), 1.0 / 16 + 1e-9);
  EXPECT_DOUBLE_EQ(share(46), 1.0 / 16);
  EXPECT_DOUBLE_EQ(share(63), 1.0 / 16);
  RopeScaling given = scaling;
  given.attention_factor = 1.25;
  EXPECT_EQ(scaled_frequencies(given, 128, 10000).scale, 1.25);
  given.attention_factor = 0;
  given.mscale = 0.5;
  given.mscale_all_dim = 1;
  EXPECT_DOUBLE_EQ(scaled_frequencies(given, 128, 10000).scale, (0.05 * std::log(16) + 1) / (0.1 * std::log(16) + 1));
}

// Figures of transformers 4.44.2, which computes in float32.
TEST(RopeScaling, GivesTheFrequenciesOfTransformers) {
  const auto expect = [](const RopeScaling& scaling, double theta, const std::map<size_t, double>& figures) {
    const auto scaled = scaled_frequencies(scaling, 128, theta);
    for (const auto& [pair, figure] : figures) EXPECT_NEAR(scaled.frequencies[pair] / figure, 1, 2e-5) << "pair " << pair;
  };
  expect({.kind = RopeScaling::Kind::kLlama3, .factor = 8, .original_length = 8192, .low_freq_factor = 1, .high_freq_factor = 4}, 500000,
         {{0, 1}, {28, 0.00321144611}, {30, 0.00137189368}, {33, 0.00031269365}, {35, 9.55621217e-05}, {63, 3.06892588e-07}});
  expect({.kind = RopeScaling::Kind::kYarn, .factor = 16, .original_length = 4096}, 10000,
         {{0, 1}, {20, 0.0562341288}, {21, 0.0469408594}, {33, 0.0046004355}, {45, 0.000151771645}, {46, 8.33450904e-05}, {63, 7.21738706e-06}});
}

class FamilyLayers : public testing::TestWithParam<const char*> {};

TEST_P(FamilyLayers, AnnounceAsManyParametersAsTheyHave) {
  for (const bool tied : {false, true}) {
    const TransformerConfig config = parse(of(GetParam(), {{"tie_word_embeddings", tied}, {"head_dim", 6}, {"attention_bias", true}, {"mlp_bias", true}}));
    SharedWeights shared;
    int64_t total = 0;
    for (const LayerSpec& spec : transformer_layers(config)) {
      const auto layer = spec.build(shared);
      int64_t count = 0;
      for (const Parameter& p : layer->parameters()) {
        count += p.value.numel();
        EXPECT_EQ(p.stored.front().begin, 0);
        EXPECT_EQ(p.stored.back().end, p.value.size(0)) << p.name << ": stored rows must cover the parameter";
      }
      EXPECT_EQ(count, spec.num_parameters) << spec.name;
      total += count;
    }
    EXPECT_EQ(total - (tied ? config.vocab_size * config.hidden_size : 0), num_parameters(config));
  }
}

INSTANTIATE_TEST_SUITE_P(All, FamilyLayers, testing::Values("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "GPT2LMHeadModel"));

}  // namespace
}  // namespace penstock::model
