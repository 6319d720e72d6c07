#include "text/token_trie.h"

#include <algorithm>

namespace penstock::text {
namespace {

constexpr size_t kLongestToken = 4096;  // bytes; a longer one is never allowed

}  // namespace

TokenTrie::TokenTrie(const Tokenizer& tokenizer) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view bytes = tokenizer.bytes_of(id);
    spans_.push_back({bytes_.size(), bytes.size() <= kLongestToken ? bytes.size() : 0});
    if (spans_.back().size == 0) continue;
    bytes_ += bytes;
    tokens_.push_back(id);
    longest_ = std::max(longest_, bytes.size());
  }
  std::sort(tokens_.begin(), tokens_.end(), [&](int32_t a, int32_t b) {
    const int order = bytes_of(a).compare(bytes_of(b));
    return order != 0 ? order < 0 : a < b;
  });
  std::vector<uint32_t> way;  // nodes from the root to the last token's end
  std::string_view last;
  const auto leave = [&](size_t depth) {
    for (; way.size() > depth; way.pop_back()) nodes_[way.back()].after = static_cast<uint32_t>(nodes_.size());
  };
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string_view bytes = bytes_of(tokens_[i]);
    const auto common = static_cast<size_t>(std::mismatch(last.begin(), last.end(), bytes.begin(), bytes.end()).second - bytes.begin());
    leave(common);
    for (size_t depth = common; depth < bytes.size(); ++depth) {
      way.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({0, static_cast<uint32_t>(i), static_cast<uint16_t>(depth), static_cast<uint8_t>(bytes[depth])});
    }
    last = bytes;
  }
  leave(0);
  nodes_.push_back({static_cast<uint32_t>(nodes_.size()), static_cast<uint32_t>(tokens_.size()), 0, 0});
}

std::string_view TokenTrie::bytes_of(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  const Span& span = spans_[static_cast<size_t>(id)];
  return std::string_view(bytes_).substr(span.begin, span.size);
}

}  // namespace penstock::text
