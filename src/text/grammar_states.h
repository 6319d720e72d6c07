#pragma once
// The places in the texts of a grammar, found as they are visited.
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "text/grammar.h"

namespace penstock::text {

// Follows all ways through the grammar at once: a place is the set of all states, with the rules that called theirs, that the bytes so far can have led to.
// Places and steps between them are kept, so a step costs a look-up when it was made before (Thompson's construction, made lazily as in RE2).
//
// Threads: one at a time.
class GrammarStates {
 public:
  using Place = int32_t;
  static constexpr Place kNowhere = -1;

  explicit GrammarStates(std::shared_ptr<const Grammar> grammar);

  // Valid until forget().
  [[nodiscard]] Place start() const { return 0; }
  // kNowhere: no text goes on like that. Throws Error kResourceExhausted when this takes more than kMaxWork steps since begin_work(), or kMaxBytes in all.
  [[nodiscard]] Place next(Place place, uint8_t byte) {
    const Place known = steps_[static_cast<size_t>(place) * num_classes_ + grammar_->class_of(byte)];
    return known != kUnknown ? known : find_next(place, byte);
  }
  [[nodiscard]] bool accepts(Place place) const { return places_[static_cast<size_t>(place)].accepts; }
  [[nodiscard]] bool goes_on(Place place) const { return !places_[static_cast<size_t>(place)].at.empty(); }

  void begin_work() { work_ = 0; }
  // What the places take. Those who walk far forget between their walks: places begin anew with start().
  [[nodiscard]] size_t bytes() const { return bytes_; }
  void forget();

  static constexpr int64_t kMaxWork = 2'000'000;
  static constexpr size_t kMaxBytes = 64 << 20;

 private:
  static constexpr Place kUnknown = -2;
  using Caller = int32_t;
  static constexpr Caller kNobody = -1;
  // A state, and where to go on when its rule ends.
  struct At {
    Grammar::State state;
    Caller caller;
    auto operator<=>(const At&) const = default;
  };
  struct Return {
    Grammar::State state;
    Caller caller;
    int depth;
  };
  struct PlaceData {
    std::vector<At> at;  // those with bytes to go on by, sorted
    bool accepts = false;
  };
  struct Hash {
    size_t operator()(const std::vector<At>& at) const;
  };

  [[nodiscard]] Place find_next(Place place, uint8_t byte);
  [[nodiscard]] Place place_of(const std::vector<At>& starts);
  void visit(At at);
  void spend(int64_t steps);
  [[nodiscard]] Caller caller_of(Grammar::State state, Caller caller);
  [[nodiscard]] int depth_of(Caller caller) const { return caller == kNobody ? 0 : callers_[static_cast<size_t>(caller)].depth; }

  const std::shared_ptr<const Grammar> grammar_;
  const size_t num_classes_;
  std::vector<PlaceData> places_;
  std::vector<Place> steps_;  // by place and class of bytes
  std::unordered_map<std::vector<At>, std::vector<Place>, Hash> known_;  // at most two: one that accepts, one that does not
  std::vector<Return> callers_;
  std::unordered_map<uint64_t, Caller> known_callers_;
  size_t bytes_ = 0;
  int64_t work_ = 0;
  // Of place_of(), kept for their memory.
  std::unordered_map<uint64_t, bool> seen_;
  std::vector<At> open_;
};

}  // namespace penstock::text
