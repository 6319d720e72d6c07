#pragma once
// The bytes of all tokens of a vocabulary, those that begin alike together.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace penstock::text {

// Tokens as their bytes in the middle of a text (Tokenizer::bytes_of()); special tokens, and others without bytes, are not among them.
//
// Threads: immutable.
class TokenTrie {
 public:
  explicit TokenTrie(const Tokenizer& tokenizer);

  // A beginning of tokens: a byte more than the one before it on its way. Nodes stand in the order in which a walk meets them.
  struct Node {
    uint32_t after = 0;   // the first node that does not begin with this one
    uint32_t tokens = 0;  // in tokens(), those that end here: up to the next node's
    uint16_t depth = 0;   // bytes before this one
    uint8_t byte = 0;
  };
  [[nodiscard]] size_t size() const { return nodes_.size() - 1; }
  [[nodiscard]] const Node& node(size_t i) const { return nodes_[i]; }  // and one behind the last
  [[nodiscard]] int32_t token(size_t i) const { return tokens_[i]; }
  [[nodiscard]] size_t longest() const { return longest_; }  // bytes of a token
  // Ids are below it.
  [[nodiscard]] int32_t vocab_size() const { return static_cast<int32_t>(spans_.size()); }
  // Empty for what is no token here.
  [[nodiscard]] std::string_view bytes_of(int32_t id) const;

 private:
  struct Span {
    size_t begin = 0, size = 0;
  };
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;
  std::string bytes_;
  std::vector<Span> spans_;  // by id, in bytes_
  size_t longest_ = 0;
};

}  // namespace penstock::text
