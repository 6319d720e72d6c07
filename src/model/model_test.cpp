#include <gtest/gtest.h>

#include "base/error.h"
#include "model/kv_cache.h"
#include "model/parameter_io.h"

namespace penstock::model {
namespace {

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
  KvCache cache({.first_layer = 3, .num_layers = 2, .kv_heads = 1, .head_size = 8}, 5);
  EXPECT_EQ(cache.keys(4).sizes(), at::IntArrayRef({5, 1, 8, 16}));
  EXPECT_EQ(cache.values(4).sizes(), at::IntArrayRef({5, 1, 16, 8}));
  EXPECT_THROW((void)cache.keys(5), Bug);
  EXPECT_EQ(cache.shape().page_bytes(), 2 * 4 * 2 * 16 * 8);
}

TEST(KvCache, TakesHalfTheMemoryInBfloat16) {
  KvCache cache({.first_layer = 0, .num_layers = 1, .kv_heads = 2, .head_size = 8, .bf16 = true}, 3);
  EXPECT_EQ(cache.shape().page_bytes(), 2 * 2 * 2 * 16 * 8);
  EXPECT_EQ(static_cast<int64_t>(cache.keys(0).nbytes() + cache.values(0).nbytes()), 3 * cache.shape().page_bytes());
}

}  // namespace
}  // namespace penstock::model
