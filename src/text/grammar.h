#pragma once
// Which texts are allowed, as an automaton over bytes whose rules call each other: what regular expressions and JSON schemas become.
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::text {

inline constexpr int kMaxGrammarStates = 100'000;
inline constexpr int kMaxGrammarEdges = 400'000;
inline constexpr int kMaxGrammarParts = 1'000'000;  // of all patterns, each part as often as it is repeated; parts need not take states
inline constexpr int kMaxGrammarDepth = 128;  // rules within each other

// A rule is an automaton with one start and one end. An edge goes on by one byte of a range, by nothing, or by a text of a rule.
//
// Threads: immutable.
class Grammar {
 public:
  using State = int32_t;
  using Rule = int32_t;
  enum class EdgeKind : uint8_t { kBytes, kSkip, kCall };
  struct Edge {
    EdgeKind kind = EdgeKind::kSkip;
    uint8_t low = 0, high = 0;  // kBytes
    Rule rule = 0;              // kCall
    State to = 0;
  };

  [[nodiscard]] Rule top() const { return top_; }
  [[nodiscard]] State start(Rule rule) const { return 2 * rule; }
  [[nodiscard]] bool is_end(State state) const { return state < 2 * num_rules_ && state % 2 == 1; }
  [[nodiscard]] std::span<const Edge> edges(State state) const {
    const auto i = static_cast<size_t>(state);
    return std::span(edges_).subspan(first_edge_[i], first_edge_[i + 1] - first_edge_[i]);
  }
  // From this state to the end of its rule, so many rules must be called within each other. Every state that an edge reaches has a way to the end.
  [[nodiscard]] int depth_needed(State state) const { return depth_needed_[static_cast<size_t>(state)]; }
  // It leads to the end of its rule without a byte, and nowhere else: who calls a rule and then comes here need not come back.
  [[nodiscard]] bool only_ends(State state) const;

  [[nodiscard]] size_t bytes() const { return (first_edge_.size() + depth_needed_.size()) * sizeof(uint32_t) + edges_.size() * sizeof(Edge); }  // of memory

  // Bytes that no edge tells apart have one class.
  [[nodiscard]] int num_classes() const { return num_classes_; }
  [[nodiscard]] uint8_t class_of(uint8_t byte) const { return classes_[byte]; }

 private:
  friend class GrammarBuilder;
  Grammar() = default;

  Rule top_ = 0;
  int num_rules_ = 0;
  std::vector<uint32_t> first_edge_;  // by state, and one more
  std::vector<Edge> edges_;
  std::vector<int> depth_needed_;
  std::array<uint8_t, 256> classes_{};
  int num_classes_ = 0;
};

// Threads: one.
class GrammarBuilder {
 public:
  using State = Grammar::State;
  using Rule = Grammar::Rule;

  // A rule, still without edges.
  [[nodiscard]] Rule rule();
  [[nodiscard]] State start(Rule rule) const { return rules_.at(static_cast<size_t>(rule)).start; }
  [[nodiscard]] State end(Rule rule) const { return rules_.at(static_cast<size_t>(rule)).end; }
  [[nodiscard]] State state();

  // Each throws Error kInvalidArgument when the automaton grows beyond its limits.
  void bytes(State from, uint8_t low, uint8_t high, State to);
  void skip(State from, State to);
  void call(State from, Rule rule, State to);
  // To be called for each part of a pattern that is written.
  void count_part();

  // Those that go on from `from` and answer where they end.
  [[nodiscard]] State literal(State from, std::string_view bytes);
  [[nodiscard]] State called(State from, Rule rule);

  // Without the edges that lead nowhere. Throws Error kInvalidArgument when no text fits.
  [[nodiscard]] Grammar build(Rule top) const;

 private:
  struct Ends {
    State start, end;
  };
  struct OwnedEdge {
    State from;
    Grammar::Edge edge;
  };
  void add(State from, Grammar::Edge edge);
  [[nodiscard]] std::vector<int> depths_needed() const;
  [[nodiscard]] std::vector<State> renumbered() const;

  int num_states_ = 0, num_parts_ = 0;
  std::vector<Ends> rules_;
  std::vector<OwnedEdge> edges_;
};

}  // namespace penstock::text
