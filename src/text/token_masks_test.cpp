#include "text/token_masks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "text/shared_cases_test.h"
#include "text/text_constraint.h"
#include "text/tokenizer.h"

namespace penstock::text {
namespace {

constexpr float kNever = -INFINITY;

std::shared_ptr<TokenMasks> masks_of(const Tokenizer& tokenizer, TextConstraint::Kind kind, const std::string& source) {
  return std::make_shared<TokenMasks>(std::make_shared<const Grammar>(constraint_grammar({kind, source}).value()), std::make_shared<TokenTrie>(tokenizer));
}

std::string allowed_bytes(ConstrainedText& text, bool may_end = true) {
  std::vector<float> logits(257, 1);
  const int32_t end = 256;
  EXPECT_TRUE(text.restrict(logits, {&end, 1}, may_end));
  std::string bytes;
  for (size_t id = 0; id < 256; ++id) {
    if (logits[id] > kNever) bytes += static_cast<char>(id);
  }
  return bytes + (logits[256] > kNever ? "<end>" : "");
}

TEST(TokenMasks, WhatMayComeNextIsPossibleAndNothingElse) {
  ConstrainedText text(masks_of(byte_tokenizer(), TextConstraint::Kind::kRegex, "ab?[xé]?"), {});
  EXPECT_EQ(allowed_bytes(text), "a");
  EXPECT_EQ(text.add('a'), TokenMasks::Next::kGoesOn);
  EXPECT_EQ(allowed_bytes(text), "bx\xC3<end>");
  EXPECT_EQ(allowed_bytes(text, /*may_end=*/false), "bx\xC3");
  EXPECT_EQ(text.add(0xC3), TokenMasks::Next::kGoesOn);
  EXPECT_EQ(allowed_bytes(text), "\xA9") << "a character is finished before anything ends";
  EXPECT_EQ(text.add('b'), TokenMasks::Next::kNotAllowed);
  EXPECT_EQ(text.add(256), TokenMasks::Next::kNotAllowed);
  EXPECT_EQ(text.add(0xA9), TokenMasks::Next::kComplete);
}

TEST(TokenMasks, ATextGoesOnFromItsTokens) {
  const auto masks = masks_of(byte_tokenizer(), TextConstraint::Kind::kRegex, "abc");
  const std::vector<int32_t> tokens = {'a', 'b'};
  ConstrainedText text(masks, tokens);
  EXPECT_EQ(allowed_bytes(text), "c");
}

TEST(TokenMasks, WhatIsForgottenIsFoundAgain) {
  const auto masks = masks_of(byte_tokenizer(), TextConstraint::Kind::kRegex, "ab?[xé]?");
  const size_t fresh = masks->bytes();
  ConstrainedText text(masks, {});
  EXPECT_EQ(text.add('a'), TokenMasks::Next::kGoesOn);
  EXPECT_EQ(allowed_bytes(text), "bx\xC3<end>");
  EXPECT_GT(masks->bytes(), fresh);
  masks->forget();
  EXPECT_EQ(masks->bytes(), fresh);
  EXPECT_EQ(allowed_bytes(text), "bx\xC3<end>");
  EXPECT_EQ(text.add('x'), TokenMasks::Next::kComplete);
}

TEST(TokenMasks, NothingIsPossibleWhereNoTokenFits) {
  ConstrainedText text(masks_of(byte_tokenizer(), TextConstraint::Kind::kRegex, "a"), {});
  std::vector<float> logits(60, 1);  // a model whose vocabulary ends before 'a'
  EXPECT_TRUE(text.restrict(logits, {}, true) == false || std::all_of(logits.begin(), logits.end(), [](float l) { return l == kNever; }));
}

// Of a real vocabulary: for each place on the way of a text, a token is allowed if and only if its bytes lead on.
TEST(TokenMasks, MasksOfRealVocabulariesAreExact) {
  const auto folder = shared_folder() / "data/tokenizers";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder;
  std::mt19937 random(9);
  int vocabularies = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    auto tokenizer = Tokenizer::load(entry.path());
    if (!tokenizer || vocabularies == 4) continue;
    ++vocabularies;
    const std::string schema = R"({"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "array", "items": {"type": "integer", "minimum": 3, "maximum": 1250}}},
      "required": ["name", "n"]})";
    const auto masks = masks_of(*tokenizer, TextConstraint::Kind::kJsonSchema, schema);
    GrammarStates plain(std::make_shared<const Grammar>(constraint_grammar({TextConstraint::Kind::kJsonSchema, schema}).value()));
    TokenMasks::Progress progress;
    auto place = plain.start();
    for (int step = 0; step < 12; ++step) {
      const auto mask = masks->mask(progress);
      std::vector<int32_t> allowed;
      plain.begin_work();
      for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
        auto next = tokenizer->bytes_of(id).empty() ? GrammarStates::kNowhere : place;
        for (const char byte : tokenizer->bytes_of(id)) {
          if (next != GrammarStates::kNowhere) next = plain.next(next, static_cast<uint8_t>(byte));
        }
        ASSERT_EQ(mask->allows(static_cast<size_t>(id)), next != GrammarStates::kNowhere) << entry.path() << " token " << id << " after " << progress.text;
        if (next != GrammarStates::kNowhere) allowed.push_back(id);
        ASSERT_FALSE(tokenizer->is_special(id) && mask->allows(static_cast<size_t>(id)));
      }
      if (allowed.empty()) break;
      const int32_t token = allowed[random() % allowed.size()];
      for (const char byte : tokenizer->bytes_of(token)) place = plain.next(place, static_cast<uint8_t>(byte));
      if (masks->add(progress, token) == TokenMasks::Next::kComplete) break;
    }
  }
  EXPECT_GT(vocabularies, 0);
}

// Random logits: whatever a model says, what comes out fits.
TEST(TokenMasks, TextsOfRandomLogitsAreValid) {
  std::mt19937 random(2);
  std::normal_distribution<float> any;
  const auto masks = masks_of(byte_tokenizer(), TextConstraint::Kind::kJsonSchema,
                              R"({"type": "object", "properties": {"a": {"type": "string", "maxLength": 5}, "b": {"type": "integer"}}, "required": ["a", "b"]})");
  for (int i = 0; i < 100; ++i) {
    ConstrainedText text(masks, {});
    std::string bytes;
    for (auto next = TokenMasks::Next::kGoesOn; next == TokenMasks::Next::kGoesOn;) {
      std::vector<float> logits(257);
      for (float& logit : logits) logit = any(random);
      ASSERT_TRUE(text.restrict(logits, {}, true));
      const auto token = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      bytes += static_cast<char>(token);
      next = text.add(token);
      ASSERT_NE(next, TokenMasks::Next::kNotAllowed) << bytes;
      ASSERT_LT(bytes.size(), 500u);
    }
    const auto json = nlohmann::json::parse(bytes);
    EXPECT_TRUE(json.at("a").is_string() && json.at("b").is_number_integer()) << bytes;
  }
}

}  // namespace
}  // namespace penstock::text
