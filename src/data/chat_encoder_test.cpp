#include "data/chat_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"
#include "data/token_shard.h"

namespace penstock::data {
namespace {

using testing::HasSubstr;

constexpr const char* kChatml =
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '<end>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}";

class Chat : public testing::Test {
 protected:
  void use(const std::string& chat_template) {
    write_file_atomic(dir_.path() / "chat_template.jinja", chat_template);
    encoder_.emplace(std::make_shared<const text::Tokenizer>(text::byte_tokenizer()), dir_.path());
  }
  EncodedDocument encode(const std::string& line) const {
    return encoder_->encode({line, TextFormat::kChat, std::make_shared<const std::string>("chat.jsonl"), 7});
  }
  // What is rendered, and what of it is predicted.
  static std::string all(const EncodedDocument& document) { return spelled(document, false); }
  static std::string learned(const EncodedDocument& document) { return spelled(document, true); }
  std::string error(const std::string& line) const {
    try {
      (void)encode(line);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kInvalidArgument);
      return e.message();
    }
    return "no error";
  }
  TempDir dir_;
  std::optional<ChatEncoder> encoder_;

 private:
  static std::string spelled(const EncodedDocument& document, bool only_targets) {
    std::string text;
    for (const uint32_t token : document.tokens) {
      if (!only_targets || (token & kNoTarget) == 0) text += static_cast<char>(token & 0xFF);
    }
    return text;
  }
};

TEST_F(Chat, OnlyWhatTheAssistantSaysIsLearnedInEveryTurn) {
  use(kChatml);
  const auto document = encode(R"({"id": 1, "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "So long"}]})");
  EXPECT_EQ(all(document), "<system>S<end>\n<user>Hi<end>\n<assistant>Hello<end>\n<user>Bye<end>\n<assistant>So long<end>\n");
  EXPECT_EQ(learned(document), "Hello<end>So long<end>") << "with what ends the turn, without the line break behind it";
  EXPECT_EQ(document.text_bytes, all(document).size());
}

TEST_F(Chat, WhatTheTemplateMarksIsTaken) {
  use("{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}{% endgeneration %};{% else %}U:{{ m.content }};{% endif %}{% endfor %}");
  const auto document = encode(R"({"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]})");
  EXPECT_EQ(all(document), "U:1;A:2;");
  EXPECT_EQ(learned(document), "2");
}

TEST_F(Chat, ATemplateWhoseBeginningChangesIsRefused) {
  use("{{ messages|length }}{% for m in messages %}{{ m.role + m.content }}{% endfor %}");
  EXPECT_THAT(error(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]})"),
              testing::AllOf(HasSubstr("chat.jsonl:7: message 2"), HasSubstr("{% generation %}")));
}

TEST_F(Chat, BadLinesAreNamed) {
  use(kChatml);
  EXPECT_THAT(error("{"), HasSubstr("chat.jsonl:7: expected JSON"));
  EXPECT_THAT(error(R"({"text": "a"})"), HasSubstr("chat.jsonl:7: expected an object with a key 'messages'"));
  EXPECT_THAT(error(R"({"messages": []})"), HasSubstr("'messages' to be a list"));
  EXPECT_THAT(error(R"({"messages": [{"content": "a"}]})"), HasSubstr("a message with a 'role'"));
  EXPECT_THAT(error(R"({"messages": [{"role": "user"}]})"), HasSubstr("with 'content'"));
  EXPECT_THAT(error(R"({"messages": [{"role": "user", "content": "a"}]})"), HasSubstr("of role \"assistant\""));
  use("{{ raise_exception('no system role') }}");
  EXPECT_THAT(error(R"({"messages": [{"role": "assistant", "content": "a"}]})"), testing::AllOf(HasSubstr("chat.jsonl:7"), HasSubstr("no system role")));
}

TEST_F(Chat, BytesHaveNoTemplate) {
  const auto bytes = std::make_shared<const text::Tokenizer>(text::byte_tokenizer());
  EXPECT_THROW(ChatEncoder(bytes, {}), Error);
  EXPECT_THROW(ChatEncoder(bytes, dir_.path()), Error);
}

}  // namespace
}  // namespace penstock::data
