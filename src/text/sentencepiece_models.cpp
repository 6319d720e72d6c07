#include "text/sentencepiece_models.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <unordered_map>

#include "base/utf8.h"

namespace penstock::text {
namespace {

constexpr float kUnknownPenalty = 10;  // how much less an unknown character scores than the worst piece
constexpr size_t kNone = ~size_t{0};

size_t character_length(std::string_view text) {
  return std::min(text.size(), 1 + static_cast<size_t>(std::max(0, utf8_after(static_cast<unsigned char>(text.front())).count)));
}

// One text on its way from characters to pieces. Algorithm: a heap of neighbours that could merge; what they were is checked when they are taken.
class ScoredMerge {
 public:
  ScoredMerge(const ScoredPieces& pieces, const PieceTrie& user_defined, std::string_view text) : pieces_(pieces) {
    while (!text.empty()) {
      size_t length = 0;
      user_defined.for_each_prefix(text, [&](size_t found, int32_t) { length = found; });
      const bool fixed = length > 0;
      if (!fixed) length = character_length(text);
      symbols_.push_back({text.substr(0, length), symbols_.size() - 1, symbols_.size() + 1, fixed});
      text.remove_prefix(length);
    }
    for (size_t i = 1; i < symbols_.size(); ++i) offer(i - 1, i);
  }

  void run() {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      Symbol& left = symbols_[top.left];
      Symbol& right = symbols_[top.right];
      if (left.text.empty() || right.text.empty() || left.text.size() + right.text.size() != top.size) continue;  // one of them has changed
      left.text = {left.text.data(), top.size};
      right.text = {};
      left.next = right.next;
      if (right.next < symbols_.size()) symbols_[right.next].previous = top.left;
      if (top.left > 0) offer(left.previous, top.left);
      if (left.next < symbols_.size()) offer(top.left, left.next);
    }
  }

  void write(PieceWriter& writer) {
    for (size_t i = 0; i < symbols_.size(); i = symbols_[i].next) write_part(symbols_[i].text, writer);
  }

 private:
  struct Symbol {
    std::string_view text;  // empty: merged into the one before
    size_t previous, next;
    bool fixed;
  };
  struct Candidate {
    double score;
    size_t left, right, size;
    bool operator<(const Candidate& other) const { return score != other.score ? score < other.score : left > other.left; }
  };

  void offer(size_t left, size_t right) {
    const Symbol &a = symbols_[left], &b = symbols_[right];
    if (a.fixed || b.fixed) return;
    const std::string_view joined(a.text.data(), a.text.size() + b.text.size());
    const int32_t id = pieces_.vocabulary->find(joined);
    if (id == kNoToken) return;
    queue_.push({pieces_.scores[static_cast<size_t>(id)], left, right, joined.size()});
    if (pieces_.uses[static_cast<size_t>(id)] == PieceUse::kUnused) parts_[joined] = {a.text, b.text};
  }

  // Parts are shorter than their piece and found by an earlier merge, so this ends; a list instead of recursion, because pieces may be long.
  void write_part(std::string_view text, PieceWriter& writer) {
    std::vector<std::string_view> waiting = {text};
    while (!waiting.empty()) {
      const std::string_view part = waiting.back();
      waiting.pop_back();
      const int32_t id = pieces_.vocabulary->find(part);
      const auto parts = id != kNoToken && pieces_.uses[static_cast<size_t>(id)] == PieceUse::kUnused ? parts_.find(part) : parts_.end();
      if (parts == parts_.end()) {
        writer.write(part, id);
        continue;
      }
      waiting.push_back(parts->second.second);
      waiting.push_back(parts->second.first);
    }
  }

  const ScoredPieces& pieces_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate> queue_;  // the highest score on top
  std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>> parts_;  // of unused pieces
};

}  // namespace

void PieceWriter::write(std::string_view part, int32_t id) {
  if (id != kNoToken && id != pieces_.unknown) {
    ids_.push_back(id);
    behind_unknown_ = false;
    return;
  }
  if (!pieces_.byte_ids.empty()) {
    for (const char byte : part) ids_.push_back(pieces_.byte_ids[static_cast<unsigned char>(byte)]);
  } else if (!behind_unknown_ && pieces_.unknown != kNoToken) {
    ids_.push_back(pieces_.unknown);
  }
  behind_unknown_ = true;
}

ScoredMergeModel::ScoredMergeModel(ScoredPieces pieces) : pieces_(std::move(pieces)) {
  for (size_t id = 0; id < pieces_.uses.size(); ++id) {
    const auto number = static_cast<int32_t>(id);
    if (pieces_.uses[id] == PieceUse::kUserDefined) user_defined_.add(pieces_.vocabulary->piece(number), number);
  }
}

void ScoredMergeModel::encode(std::string_view text, std::vector<int32_t>& ids) const {
  ScoredMerge merge(pieces_, user_defined_, text);
  merge.run();
  PieceWriter writer(pieces_, ids);
  merge.write(writer);
}

UnigramModel::UnigramModel(ScoredPieces pieces) : pieces_(std::move(pieces)) {
  double lowest = std::numeric_limits<float>::max();
  highest_ = std::numeric_limits<float>::min();  // the smallest positive one, as in SentencePiece
  for (size_t id = 0; id < pieces_.uses.size(); ++id) {
    const auto number = static_cast<int32_t>(id);
    if (pieces_.uses[id] == PieceUse::kNormal) {
      lowest = std::min(lowest, pieces_.scores[id]);
      highest_ = std::max(highest_, pieces_.scores[id]);
    }
    if (pieces_.uses[id] == PieceUse::kNormal || pieces_.uses[id] == PieceUse::kUserDefined) trie_.add(pieces_.vocabulary->piece(number), number);
  }
  unknown_score_ = rounded(lowest - kUnknownPenalty);
}

// Viterbi over the bytes at which characters end: the best way to each of them is known when the ways on from it are tried.
void UnigramModel::encode(std::string_view text, std::vector<int32_t>& ids) const {
  struct Node {
    double score = 0;
    size_t begin = kNone;  // of the last piece on the best way here
    int32_t id = kNoToken;
  };
  std::vector<Node> best(text.size() + 1);
  const auto offer = [&](size_t begin, size_t end, double score, int32_t id) {
    if (best[end].begin == kNone || score > best[end].score) best[end] = {rounded(score), begin, id};
  };
  for (size_t begin = 0; begin < text.size();) {
    const size_t length = character_length(text.substr(begin));
    const double here = best[begin].score;
    bool known = false;
    trie_.for_each_prefix(text.substr(begin), [&](size_t size, int32_t id) {
      const auto index = static_cast<size_t>(id);
      // User-defined pieces win over everything else of the same length.
      const bool wanted = pieces_.uses[index] == PieceUse::kUserDefined;
      const double score = wanted ? rounded(static_cast<double>(size) * highest_) - 0.1 : pieces_.scores[index];
      offer(begin, begin + size, score + here, id);
      known |= size == length;
    });
    if (!known) offer(begin, begin + length, rounded(unknown_score_ + here), pieces_.unknown);
    begin += length;
  }
  std::vector<size_t> ends;
  for (size_t end = text.size(); end > 0; end = best[end].begin) ends.push_back(end);
  PieceWriter writer(pieces_, ids);
  std::reverse(ends.begin(), ends.end());
  for (const size_t end : ends) writer.write(text.substr(best[end].begin, end - best[end].begin), best[end].id);
}

}  // namespace penstock::text
