#include "text/grammar_states.h"

#include <algorithm>

namespace penstock::text {
namespace {

uint64_t pair_of(int32_t a, int32_t b) { return static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32 | static_cast<uint32_t>(b); }

}  // namespace

size_t GrammarStates::Hash::operator()(const std::vector<At>& at) const {
  uint64_t hash = at.size();
  for (const At& a : at) {
    hash = (hash ^ pair_of(a.state, a.caller)) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  }
  return hash;
}

GrammarStates::GrammarStates(std::shared_ptr<const Grammar> grammar)
    : grammar_(std::move(grammar)), num_classes_(static_cast<size_t>(grammar_->num_classes())) {
  forget();
}

void GrammarStates::forget() {
  places_.clear();
  steps_.clear();
  known_.clear();
  callers_.clear();
  known_callers_.clear();
  bytes_ = 0;
  begin_work();
  (void)place_of({{grammar_->start(grammar_->top()), kNobody}});
}

void GrammarStates::spend(int64_t steps) {
  work_ += steps;
  if (work_ > kMaxWork) throw error(Code::kResourceExhausted, "the constraint leads to too many places at once; expected one that is less ambiguous");
  if (bytes_ > kMaxBytes) throw error(Code::kResourceExhausted, "the constraint's places take more than {} MiB; expected smaller repetitions", kMaxBytes >> 20);
}

GrammarStates::Caller GrammarStates::caller_of(Grammar::State state, Caller caller) {
  const auto [found, fresh] = known_callers_.try_emplace(pair_of(state, caller), static_cast<Caller>(callers_.size()));
  if (fresh) {
    callers_.push_back({state, caller, depth_of(caller) + 1});
    bytes_ += sizeof(Return) + 48;
  }
  return found->second;
}

// To be looked at, unless it was, or its rule cannot end within the depth.
void GrammarStates::visit(At at) {
  if (depth_of(at.caller) + grammar_->depth_needed(at.state) > kMaxGrammarDepth) return;
  if (seen_.try_emplace(pair_of(at.state, at.caller), true).second) open_.push_back(at);
}

GrammarStates::Place GrammarStates::place_of(const std::vector<At>& starts) {
  if (seen_.bucket_count() > 4096) seen_ = {};  // clear() would go through all of them
  seen_.clear();
  open_.clear();
  for (const At& at : starts) visit(at);
  PlaceData place;
  while (!open_.empty()) {
    const At at = open_.back();
    open_.pop_back();
    if (grammar_->is_end(at.state)) {
      if (at.caller == kNobody) {
        place.accepts = true;
      } else {
        const Return& back = callers_[static_cast<size_t>(at.caller)];
        visit({back.state, back.caller});
      }
    }
    const auto edges = grammar_->edges(at.state);
    spend(1 + static_cast<int64_t>(edges.size()));
    bool has_bytes = false;
    for (const Grammar::Edge& edge : edges) {
      if (edge.kind == Grammar::EdgeKind::kBytes) has_bytes = true;
      if (edge.kind == Grammar::EdgeKind::kSkip) visit({edge.to, at.caller});
      if (edge.kind != Grammar::EdgeKind::kCall) continue;
      if (depth_of(at.caller) + grammar_->depth_needed(edge.to) > kMaxGrammarDepth) continue;
      const Caller caller = grammar_->only_ends(edge.to) ? at.caller : caller_of(edge.to, at.caller);
      visit({grammar_->start(edge.rule), caller});
    }
    if (has_bytes) place.at.push_back(at);
  }
  if (place.at.empty() && !place.accepts) return kNowhere;
  std::sort(place.at.begin(), place.at.end());
  std::vector<Place>& same = known_[place.at];
  for (const Place known : same) {
    if (accepts(known) == place.accepts) return known;
  }
  same.push_back(static_cast<Place>(places_.size()));
  bytes_ += 2 * place.at.size() * sizeof(At) + num_classes_ * sizeof(Place) + 128;
  places_.push_back(std::move(place));
  steps_.resize(steps_.size() + num_classes_, kUnknown);
  return same.back();
}

GrammarStates::Place GrammarStates::find_next(Place place, uint8_t byte) {
  std::vector<At> reached;
  const auto& from = places_[static_cast<size_t>(place)].at;
  for (const At& at : from) {
    const auto edges = grammar_->edges(at.state);
    spend(static_cast<int64_t>(edges.size()));
    for (const Grammar::Edge& edge : edges) {
      if (edge.kind == Grammar::EdgeKind::kBytes && edge.low <= byte && byte <= edge.high) reached.push_back({edge.to, at.caller});
    }
  }
  const Place next = reached.empty() ? kNowhere : place_of(reached);
  steps_[static_cast<size_t>(place) * num_classes_ + grammar_->class_of(byte)] = next;
  return next;
}

}  // namespace penstock::text
