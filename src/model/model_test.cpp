#include <gtest/gtest.h>

#include "base/error.h"
#include "model/kv_cache.h"
#include "model/llama.h"
#include "model/parameter_io.h"

namespace penstock::model {
namespace {

constexpr const char* kConfig = R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 24, "rms_norm_eps": 1e-5, "eos_token_id": [7, 9]})";

std::string with(const std::string& key, const std::string& value) {
  std::string text = kConfig;
  return text.substr(0, text.size() - 1) + ", \"" + key + "\": " + value + "}";
}

std::string error_of(const std::string& json) {
  const auto parsed = parse_llama_config(json, "config.json");
  return parsed.ok() ? "no error" : parsed.error().message();
}

TEST(LlamaConfig, ReadsWhatHuggingFaceWritesAndFillsInWhatIsAbsent) {
  const LlamaConfig c = parse_llama_config(kConfig, "config.json").value();
  EXPECT_EQ(c.head_size, 4);
  EXPECT_EQ(c.num_kv_heads, 2);
  EXPECT_EQ(c.eos_token_id, 7);
  EXPECT_EQ(c.rope_theta, 10000);
  EXPECT_FALSE(c.tie_word_embeddings);
}

TEST(LlamaConfig, SurvivesARoundTrip) {
  LlamaConfig c = parse_llama_config(kConfig, "config.json").value();
  c.tie_word_embeddings = true;
  c.rope_theta = 500000;
  const LlamaConfig again = parse_llama_config(to_config_json(c), "again").value();
  EXPECT_EQ(to_config_json(again), to_config_json(c));
  EXPECT_EQ(again.parameters(), c.parameters());
}

TEST(LlamaConfig, NamesTheKeyThatIsWrong) {
  EXPECT_EQ(error_of(with("vocab_size", "\"many\"")), "config.json: key 'vocab_size': expected an integer from 1 to 16777216, found \"many\"");
  EXPECT_NE(error_of(with("num_key_value_heads", "3")).find("num_attention_heads 4 is not a multiple of num_key_value_heads 3"), std::string::npos);
  EXPECT_NE(error_of(with("rope_scaling", R"({"type": "yarn"})")).find("rope_scaling"), std::string::npos);
  EXPECT_NE(error_of(R"({"architectures": ["MambaForCausalLM"]})").find("MambaForCausalLM"), std::string::npos);
  EXPECT_NE(error_of(R"({"model_type": "llama"})").find("'vocab_size' is missing"), std::string::npos);
  EXPECT_EQ(error_of("[1, 2"), "config.json: not a JSON object");
}

TEST(LlamaLayers, AnnounceAsManyParametersAsTheyHave) {
  for (const bool tied : {false, true}) {
    LlamaConfig config = parse_llama_config(kConfig, "config.json").value();
    config.tie_word_embeddings = tied;
    SharedWeights shared;
    int64_t total = 0;
    for (const LayerSpec& spec : llama_layers(config)) {
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
    EXPECT_EQ(total - (tied ? config.vocab_size * config.hidden_size : 0), config.parameters());
  }
}

TEST(Initialize, DependsOnSeedAndNameAlone) {
  const auto make = [](const std::string& name, uint64_t seed) {
    Parameter p{name, at::empty({8, 8}).requires_grad_(true), {}, 0.02, true};
    initialize(p, seed);
    return p.value.detach();
  };
  EXPECT_TRUE(make("a", 1).equal(make("a", 1)));
  EXPECT_FALSE(make("a", 1).equal(make("b", 1)));
  EXPECT_FALSE(make("a", 1).equal(make("a", 2)));
}

TEST(LoadParameter, FillsFusedRowsByTheirNamesAndNamesWhatDoesNotFit) {
  Parameter p{"qk", at::zeros({3, 2}), {{"q", 0, 2}, {"k", 2, 3}}, 0.02, true};
  const std::map<std::string, at::Tensor> file{{"q", at::ones({2, 2}).to(at::kBFloat16)}, {"k", at::full({1, 2}, 5.0)}};
  load_parameter(p, p.value, [&](const std::string& name) { return file.at(name); });
  EXPECT_TRUE(p.value.equal(at::tensor({1.0f, 1.0f, 1.0f, 1.0f, 5.0f, 5.0f}).view({3, 2})));
  try {
    load_parameter(p, p.value, [&](const std::string&) { return at::ones({2, 3}); });
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("tensor 'q': expected shape [2, 2], found [2, 3]"), std::string::npos) << e.message();
  }
}

TEST(KvCache, KnowsItsLayersOnly) {
  KvCache cache({.first_layer = 3, .num_layers = 2, .slots = 2, .kv_heads = 1, .max_length = 4, .head_size = 8});
  EXPECT_EQ(cache.keys(4).size(2), 4);
  EXPECT_THROW((void)cache.keys(5), Bug);
  EXPECT_EQ(cache.shape().bytes(), 2 * 4 * 2 * 2 * 4 * 8);
}

}  // namespace
}  // namespace penstock::model
