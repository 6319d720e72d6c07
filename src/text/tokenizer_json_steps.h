#pragma once
// The parts of tokenizer.json that are lists of steps. For the .cpp files of this folder.
#include <functional>
#include <string>
#include <vector>

#include "text/json_node.h"
#include "text/tokenizer_parts.h"

namespace penstock::text {

// Each throws Error kDataLoss or kUnimplemented naming the key. An absent node adds nothing.
void read_normalizer(const JsonNode& node, Normalizer& normalizer);

// True when the last step is ByteLevel: pieces are bytes then.
[[nodiscard]] bool read_pre_tokenizer(const JsonNode& node, PreTokenizer& pre_tokenizer);

// Fills `before` and `after`.
void read_post_processor(const JsonNode& node, TokenizerParts& parts);

// What turns the text of a token into the bytes that it spells.
struct TokenSpelling {
  bool byte_level = false;     // each character stands for a byte
  bool byte_fallback = false;  // <0x0A> is a byte
  std::vector<std::function<void(std::string& text)>> steps;  // before that
};
// Also fills `start`. The node must be present.
[[nodiscard]] TokenSpelling read_decoder(const JsonNode& node, StartRule& start);
[[nodiscard]] std::string spell(const TokenSpelling& spelling, const std::string& token);

}  // namespace penstock::text
