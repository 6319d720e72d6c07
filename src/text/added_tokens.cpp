#include "text/added_tokens.h"

#include <algorithm>

#include "text/characters.h"

namespace penstock::text {
namespace {

bool word_before(std::string_view text, size_t at) {
  if (at == 0) return false;
  size_t last = last_character(text.substr(0, at));
  return is_word(next_character(text, last));
}

bool word_at(std::string_view text, size_t at) { return at < text.size() && is_word(next_character(text, at)); }

size_t space_before(std::string_view text, size_t at) {
  while (at > 0) {
    const size_t last = last_character(text.substr(0, at));
    size_t next = last;
    if (!is_white_space(next_character(text, next))) break;
    at = last;
  }
  return at;
}

size_t space_behind(std::string_view text, size_t at) {
  while (at < text.size()) {
    size_t next = at;
    if (!is_white_space(next_character(text, next))) break;
    at = next;
  }
  return at;
}

}  // namespace

void AddedTokens::add(AddedToken token) {
  uint32_t node = 0;
  for (const char byte : token.content) {
    const uint64_t key = uint64_t{node} << 8 | static_cast<unsigned char>(byte);
    if (const uint32_t* child = children_.find(key)) {
      node = *child;
    } else {
      node = static_cast<uint32_t>(token_of_node_.size());
      children_.insert(key, node);
      token_of_node_.push_back(kNone);
    }
  }
  starts_[static_cast<unsigned char>(token.content.at(0))] = true;
  token_of_node_[node] = tokens_.size();
  tokens_.push_back(std::move(token));
}

bool AddedTokens::special_at(std::string_view text, size_t at) const {
  if (!starts_[static_cast<unsigned char>(text[at])]) return false;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const uint32_t* child = children_.find(uint64_t{node} << 8 | static_cast<unsigned char>(text[i]));
    if (child == nullptr) return false;
    node = *child;
    if (token_of_node_[node] != kNone && tokens_[token_of_node_[node]].special) return true;
  }
  return false;
}

size_t AddedTokens::longest_at(std::string_view text, size_t at, size_t& end) const {
  size_t longest = kNone;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const uint32_t* child = children_.find(uint64_t{node} << 8 | static_cast<unsigned char>(text[i]));
    if (child == nullptr) break;
    node = *child;
    if (token_of_node_[node] == kNone) continue;
    longest = token_of_node_[node];
    end = i + 1;
  }
  return longest;
}

bool AddedTokens::find(std::string_view text, size_t at, bool special, size_t done, Found& found) const {
  if (tokens_.empty()) return false;
  for (size_t end = 0; at < text.size(); ++at) {
    if (!starts_[static_cast<unsigned char>(text[at])]) continue;
    const size_t index = longest_at(text, at, end);
    if (index == kNone) continue;
    const AddedToken& token = tokens_[index];
    const bool taken = (special || !token.special) && !(token.single_word && (word_before(text, at) || word_at(text, end)));
    if (taken) {
      const size_t begin = token.left_strip ? std::max(done, space_before(text, at)) : at;
      // The end may lie before `done`: white space that the token before took is there again behind a token of white space, as in `tokenizers`.
      found = {index, std::max(begin, done), token.right_strip ? space_behind(text, end) : end, end};
      return true;
    }
    at = end - 1;  // what is not taken is not looked at again
  }
  return false;
}

}  // namespace penstock::text
