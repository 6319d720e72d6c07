#include "text/bpe_model.h"

#include <algorithm>
#include <queue>

#include "base/utf8.h"

namespace penstock::text {
namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581, which stands for a space
constexpr size_t kShort = 32;                              // symbols that are searched one by one faster than through a heap
enum : char { kUnknown, kWhole, kParts };

uint64_t key_of(int32_t left, int32_t right) { return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right); }

}  // namespace

BpeModel::BpeModel(std::shared_ptr<const Vocabulary> vocabulary, const std::vector<BpeMerge>& merges, const BpeOptions& options)
    : vocabulary_(std::move(vocabulary)), options_(options), rules_(merges.size()), whole_(static_cast<size_t>(vocabulary_->size())) {
  uint32_t rank = 0;
  for (const BpeMerge& merge : merges) rules_.insert(key_of(merge.left, merge.right), {rank++, merge.result});
  for (size_t byte = 0; byte < 256; ++byte) {
    const char value = static_cast<char>(byte);
    id_of_byte_[byte] = options.bytes ? vocabulary_->find({&value, 1}) : vocabulary_->find(fmt::format("<0x{:02X}>", byte));
  }
  split_words_ = words_are_independent(merges);
}

// Text that is not cut beforehand would be merged as one long word. Where no rule's result holds the start of a word behind something else, merges
// never cross such a start, so that cutting there changes nothing.
bool BpeModel::words_are_independent(const std::vector<BpeMerge>& merges) const {
  if (options_.bytes || options_.ignore_merges || vocabulary_->find(kSpaceSymbol) == kNoToken) return false;
  return std::none_of(merges.begin(), merges.end(), [&](const BpeMerge& merge) {
    const std::string_view piece = vocabulary_->piece(merge.result);
    for (size_t at = piece.find(kSpaceSymbol); at != std::string_view::npos; at = piece.find(kSpaceSymbol, at + kSpaceSymbol.size())) {
      if (!piece.substr(0, at).ends_with(kSpaceSymbol) && at > 0) return true;
    }
    return false;
  });
}

void BpeModel::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (options_.ignore_merges) {
    if (const int32_t id = vocabulary_->find(piece); id != kNoToken) {
      ids.push_back(id);
      return;
    }
  }
  while (split_words_ && !piece.empty()) {
    size_t length = 0;  // of the spaces and what follows up to the next one
    while (piece.substr(length).starts_with(kSpaceSymbol)) length += kSpaceSymbol.size();
    length = std::min(piece.find(kSpaceSymbol, length), piece.size());
    encode_word(piece.substr(0, length), ids);
    piece.remove_prefix(length);
  }
  if (!piece.empty()) encode_word(piece, ids);
}

void BpeModel::encode_word(std::string_view word, std::vector<int32_t>& ids) const {
  if (const int32_t id = vocabulary_->find(word); id != kNoToken && is_whole(id)) {
    ids.push_back(id);
    return;
  }
  const size_t first = ids.size();
  append_symbols(word, ids);
  ids.resize(first + merge(ids.data() + first, ids.size() - first));
}

bool BpeModel::is_whole(int32_t id) const {
  std::atomic<char>& state = whole_[static_cast<size_t>(id)];
  if (const char known = state.load(std::memory_order_relaxed); known != kUnknown) return known == kWhole;
  std::vector<int32_t> ids;
  append_symbols(vocabulary_->piece(id), ids);
  const bool whole = merge(ids.data(), ids.size()) == 1 && ids.front() == id;
  state.store(whole ? kWhole : kParts, std::memory_order_relaxed);
  return whole;
}

void BpeModel::append_symbols(std::string_view word, std::vector<int32_t>& ids) const {
  bool unknown_open = false;  // unknown characters seen, their token not yet written
  const auto write_unknown = [&] {
    if (unknown_open) ids.push_back(options_.unknown);
    unknown_open = false;
  };
  for (size_t at = 0, length; at < word.size(); at += length) {
    const auto first = static_cast<unsigned char>(word[at]);
    length = options_.bytes ? 1 : 1 + static_cast<size_t>(std::max(0, utf8_after(first).count));
    const std::string_view symbol = word.substr(at, length);
    const int32_t id = options_.bytes ? id_of_byte_[first] : vocabulary_->find(symbol);
    if (id != kNoToken) {
      write_unknown();
      ids.push_back(id);
    } else if (!append_bytes(symbol, ids) && options_.unknown != kNoToken) {
      if (!options_.fuse_unknown) write_unknown();
      unknown_open = true;
    }
  }
  write_unknown();
}

bool BpeModel::append_bytes(std::string_view character, std::vector<int32_t>& ids) const {
  if (!options_.byte_fallback) return false;
  const auto id_of = [&](char byte) { return id_of_byte_[static_cast<unsigned char>(byte)]; };
  if (std::any_of(character.begin(), character.end(), [&](char byte) { return id_of(byte) == kNoToken; })) return false;
  for (const char byte : character) ids.push_back(id_of(byte));
  return true;
}

BpeModel::Rule BpeModel::rule_of(int32_t left, int32_t right) const {
  const Rule* rule = rules_.find(key_of(left, right));
  return rule == nullptr ? Rule{} : *rule;
}

size_t BpeModel::merge(int32_t* ids, size_t count) const {
  if (rules_.size() == 0) return count;
  return count <= kShort ? merge_short(ids, count) : merge_long(ids, count);
}

size_t BpeModel::merge_short(int32_t* ids, size_t count) const {
  std::array<Rule, kShort> rules;  // [i]: of symbols i and i + 1
  for (size_t i = 0; i + 1 < count; ++i) rules[i] = rule_of(ids[i], ids[i + 1]);
  while (count > 1) {
    const auto first = std::min_element(rules.begin(), rules.begin() + count - 1, [](const Rule& a, const Rule& b) { return a.rank < b.rank; });
    if (first->result == kNoToken) break;
    const auto at = static_cast<size_t>(first - rules.begin());
    ids[at] = first->result;
    std::copy(ids + at + 2, ids + count, ids + at + 1);
    if (at + 2 < count) std::copy(rules.begin() + at + 2, rules.begin() + count - 1, rules.begin() + at + 1);
    --count;
    if (at + 1 < count) rules[at] = rule_of(ids[at], ids[at + 1]);
    if (at > 0) rules[at - 1] = rule_of(ids[at - 1], ids[at]);
  }
  return count;
}

size_t BpeModel::merge_long(int32_t* ids, size_t count) const {
  struct Candidate {
    uint32_t rank;
    int32_t result;
    size_t at;
    bool operator<(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
  };
  std::vector<size_t> next(count), previous(count);
  std::priority_queue<Candidate> queue;  // the lowest rank on top
  const auto offer = [&](size_t left, size_t right) {
    const Rule rule = rule_of(ids[left], ids[right]);
    if (rule.result != kNoToken) queue.push({rule.rank, rule.result, left});
  };
  for (size_t i = 0; i < count; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;  // never read for 0
    if (i + 1 < count) offer(i, i + 1);
  }
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const size_t right = next[top.at];
    // Symbols only grow, so the same result means the same two symbols; a symbol that is gone has no result.
    if (ids[top.at] == kNoToken || right >= count || rule_of(ids[top.at], ids[right]).result != top.result) continue;
    ids[top.at] = top.result;
    ids[right] = kNoToken;
    next[top.at] = next[right];
    if (next[right] < count) {
      previous[next[right]] = top.at;
      offer(top.at, next[right]);
    }
    if (top.at > 0) offer(previous[top.at], top.at);
  }
  return static_cast<size_t>(std::remove(ids, ids + count, kNoToken) - ids);
}

}  // namespace penstock::text
