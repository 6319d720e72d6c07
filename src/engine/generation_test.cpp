#include "engine/generation.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

TEST(Generation, SpecialTokensAreTextOnlyWhereTheRequestSaysSo) {
  const text::Tokenizer tokenizer = text::byte_tokenizer();
  const std::vector<int32_t> prompt = {'p'}, answer = {'a', tokenizer.end_id(), 'b'};
  for (const bool skip : {true, false}) {
    text::GenerationRequest request;
    request.sampling.ignore_eos = true;
    request.sampling.skip_special_tokens = skip;
    Generation generation(tokenizer, request, prompt, nullptr);
    std::string text;
    for (const int32_t id : answer) text += generation.accept({id}, /*at_limit=*/false, 1).text;
    EXPECT_EQ(text, skip ? "ab" : "a<|end|>b");
  }
}

}  // namespace
}  // namespace penstock::engine
