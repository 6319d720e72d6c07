#include "text/grammar.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <string_view>

namespace penstock::text {
namespace {

constexpr int kNoWay = std::numeric_limits<int>::max();

}  // namespace

bool Grammar::only_ends(State state) const {
  for (int hops = 0; hops < 16; ++hops) {  // longer chains are only less thrifty
    if (is_end(state)) return true;
    const auto out = edges(state);
    if (out.size() != 1 || out[0].kind != EdgeKind::kSkip) return false;
    state = out[0].to;
  }
  return false;
}

GrammarBuilder::State GrammarBuilder::state() {
  if (num_states_ >= kMaxGrammarStates) throw error(Code::kInvalidArgument, "takes more than {} states; expected fewer or smaller repetitions", kMaxGrammarStates);
  return num_states_++;
}

GrammarBuilder::Rule GrammarBuilder::rule() {
  const State start = state();
  rules_.push_back({start, state()});
  return static_cast<Rule>(rules_.size()) - 1;
}

void GrammarBuilder::add(State from, Grammar::Edge edge) {
  if (edges_.size() >= kMaxGrammarEdges) throw error(Code::kInvalidArgument, "takes more than {} edges; expected fewer or smaller repetitions", kMaxGrammarEdges);
  edges_.push_back({from, edge});
}

void GrammarBuilder::bytes(State from, uint8_t low, uint8_t high, State to) { add(from, {Grammar::EdgeKind::kBytes, low, high, 0, to}); }

void GrammarBuilder::skip(State from, State to) { add(from, {Grammar::EdgeKind::kSkip, 0, 0, 0, to}); }

void GrammarBuilder::call(State from, Rule rule, State to) { add(from, {Grammar::EdgeKind::kCall, 0, 0, rule, to}); }

void GrammarBuilder::count_part() {
  if (++num_parts_ > kMaxGrammarParts) throw error(Code::kInvalidArgument, "repetitions within each other make it too large; expected fewer or smaller ones");
}

GrammarBuilder::State GrammarBuilder::literal(State from, std::string_view text) {
  for (const char c : text) {
    const State to = state();
    bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
    from = to;
  }
  return from;
}

GrammarBuilder::State GrammarBuilder::called(State from, Rule rule) {
  const State to = state();
  call(from, rule, to);
  return to;
}

// From each state to the end of its rule: the least depth of calls, by Knuth's generalization of Dijkstra's algorithm (1977), from the ends backwards.
std::vector<int> GrammarBuilder::depths_needed() const {
  std::vector<std::vector<size_t>> into(static_cast<size_t>(num_states_));  // edges by the state that they lead to
  std::vector<std::vector<size_t>> calls(rules_.size());                    // and by the rule that they call
  for (size_t i = 0; i < edges_.size(); ++i) {
    into[static_cast<size_t>(edges_[i].edge.to)].push_back(i);
    if (edges_[i].edge.kind == Grammar::EdgeKind::kCall) calls[static_cast<size_t>(edges_[i].edge.rule)].push_back(i);
  }
  std::vector<Rule> rule_started(static_cast<size_t>(num_states_), -1);
  std::vector<int> needed(static_cast<size_t>(num_states_), kNoWay);
  std::vector<bool> settled(static_cast<size_t>(num_states_));
  using Entry = std::pair<int, State>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  const auto offer = [&](State state, int depth) {
    int& best = needed[static_cast<size_t>(state)];
    if (depth >= best) return;
    best = depth;
    queue.emplace(depth, state);
  };
  // Along an edge backwards, once both what it calls and where it leads are settled.
  const auto follow = [&](const OwnedEdge& owned) {
    const auto to = static_cast<size_t>(owned.edge.to);
    if (!settled[to]) return;
    if (owned.edge.kind != Grammar::EdgeKind::kCall) return offer(owned.from, needed[to]);
    const auto callee = static_cast<size_t>(start(owned.edge.rule));
    if (settled[callee]) offer(owned.from, std::max(needed[to], needed[callee] + 1));
  };
  for (size_t rule = 0; rule < rules_.size(); ++rule) {
    rule_started[static_cast<size_t>(rules_[rule].start)] = static_cast<Rule>(rule);
    offer(rules_[rule].end, 0);
  }
  while (!queue.empty()) {
    const auto [depth, state] = queue.top();
    queue.pop();
    const auto place = static_cast<size_t>(state);
    if (settled[place]) continue;
    settled[place] = true;
    for (const size_t edge : into[place]) follow(edges_[edge]);
    if (rule_started[place] < 0) continue;
    for (const size_t edge : calls[static_cast<size_t>(rule_started[place])]) follow(edges_[edge]);
  }
  return needed;
}

// Starts and ends of rules first, as Grammar has them.
std::vector<GrammarBuilder::State> GrammarBuilder::renumbered() const {
  std::vector<State> number(static_cast<size_t>(num_states_), -1);
  State next = 0;
  for (const Ends& rule : rules_) {
    number[static_cast<size_t>(rule.start)] = next++;
    number[static_cast<size_t>(rule.end)] = next++;
  }
  for (State& n : number) {
    if (n < 0) n = next++;
  }
  return number;
}

Grammar GrammarBuilder::build(Rule top) const {
  const std::vector<int> needed = depths_needed();
  if (needed[static_cast<size_t>(start(top))] > kMaxGrammarDepth) throw error(Code::kInvalidArgument, "no text fits");
  const std::vector<State> number = renumbered();
  Grammar grammar;
  grammar.top_ = top;
  grammar.num_rules_ = static_cast<int>(rules_.size());
  grammar.depth_needed_.resize(static_cast<size_t>(num_states_));
  for (size_t state = 0; state < needed.size(); ++state) grammar.depth_needed_[static_cast<size_t>(number[state])] = needed[state];

  std::array<bool, 257> bounds{};  // where a class begins
  grammar.first_edge_.assign(static_cast<size_t>(num_states_) + 1, 0);
  std::vector<OwnedEdge> kept;
  for (const OwnedEdge& owned : edges_) {
    const Grammar::Edge& edge = owned.edge;
    const bool call = edge.kind == Grammar::EdgeKind::kCall;
    if (needed[static_cast<size_t>(edge.to)] == kNoWay || (call && needed[static_cast<size_t>(start(edge.rule))] == kNoWay)) continue;
    kept.push_back({number[static_cast<size_t>(owned.from)], edge});
    kept.back().edge.to = number[static_cast<size_t>(edge.to)];
    ++grammar.first_edge_[static_cast<size_t>(kept.back().from) + 1];
    if (edge.kind == Grammar::EdgeKind::kBytes) bounds[edge.low] = bounds[static_cast<size_t>(edge.high) + 1] = true;
  }
  std::stable_sort(kept.begin(), kept.end(), [](const OwnedEdge& a, const OwnedEdge& b) { return a.from < b.from; });
  for (const OwnedEdge& owned : kept) grammar.edges_.push_back(owned.edge);
  for (size_t i = 1; i < grammar.first_edge_.size(); ++i) grammar.first_edge_[i] += grammar.first_edge_[i - 1];
  int current = 0;
  for (size_t byte = 0; byte < 256; ++byte) {
    if (byte > 0 && bounds[byte]) ++current;
    grammar.classes_[byte] = static_cast<uint8_t>(current);
  }
  grammar.num_classes_ = current + 1;
  return grammar;
}

}  // namespace penstock::text
