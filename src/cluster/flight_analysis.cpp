#include "cluster/flight_analysis.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

namespace penstock::cluster {
namespace {

using Kind = FlightEntry::Kind;

constexpr double kStale = 60;      // seconds before the newest dump
constexpr size_t kMaxListed = 16;  // ranks in one list

std::string list_of(const std::set<int>& ranks) {
  if (ranks.size() == 1) return fmt::format("rank {}", *ranks.begin());
  std::string text = "ranks ";
  size_t position = 0;
  for (const int rank : ranks) {
    if (position == kMaxListed) return text + fmt::format(" and {} others", ranks.size() - kMaxListed);
    const bool last = position + 1 == ranks.size();
    text += fmt::format("{}{}", position == 0 ? "" : last ? " and " : ", ", rank);
    ++position;
  }
  return text;
}

// The one that the rank's main thread is inside of: of those not finished the innermost, which is the last that began.
const FlightEntry* inside_of(const FlightDump& dump) {
  const FlightEntry* innermost = nullptr;
  // A message is inside of the action that waits for it, also when both began in the same microsecond.
  const auto began = [](const FlightEntry& e) {
    return std::pair(std::max(e.posted_us, e.waited_us), e.kind == Kind::kMessage || e.kind == Kind::kCollective);
  };
  for (const FlightEntry& e : dump.recorded.entries) {
    const bool posted_only = (e.kind == Kind::kMessage || e.kind == Kind::kCollective) && e.waited_us == 0;
    if (e.finished_us != 0 || posted_only || e.kind == Kind::kBackground) continue;
    if (innermost == nullptr || began(e) >= began(*innermost)) innermost = &e;
  }
  return innermost;
}

class Analysis {
 public:
  explicit Analysis(std::span<const FlightDump> dumps) {
    int64_t newest = 0;
    for (const FlightDump& d : dumps) newest = std::max(newest, d.unix_us);
    for (const FlightDump& d : dumps) {
      if (static_cast<double>(newest - d.unix_us) * 1e-6 > kStale) continue;
      world_size_ = std::max(world_size_, d.world_size);
      by_rank_[d.rank] = &d;
    }
    for (const auto& [rank, dump] : by_rank_) inside_[rank] = inside_of(*dump);
  }

  FlightFindings operator()() {
    FlightFindings findings;
    for (const auto& [rank, entry] : inside_) waits_for_[rank] = awaited(rank);
    find_culprits();
    findings.culprits.assign(culprits_.begin(), culprits_.end());
    findings.headline = headline();
    for (int rank = 0; rank < world_size_; ++rank) findings.ranks.push_back(fmt::format("rank {} {}", rank, describe(rank)));
    return findings;
  }

 private:
  [[nodiscard]] const FlightRecorder::Group* group_of(int rank, const FlightEntry& entry) const {
    return entry.group < 0 ? nullptr : &by_rank_.at(rank)->recorded.groups[static_cast<size_t>(entry.group)];
  }
  [[nodiscard]] static bool is_communication(const FlightEntry& e) { return e.kind == Kind::kMessage || e.kind == Kind::kCollective; }

  // The entry of `rank` for the collective `sequence` of a group, or the last one that it called there.
  [[nodiscard]] const FlightEntry* collective_of(int rank, const std::string& group, int64_t sequence) const {
    const FlightEntry* best = nullptr;
    const auto dump = by_rank_.find(rank);
    if (dump == by_rank_.end()) return nullptr;
    for (const FlightEntry& e : dump->second->recorded.entries) {
      if (e.kind != Kind::kCollective || e.group < 0 || group_of(rank, e)->name != group) continue;
      if (e.sequence == sequence) return &e;
      if (best == nullptr || e.sequence > best->sequence) best = &e;
    }
    return best;
  }

  [[nodiscard]] std::set<int> awaited(int rank) const {
    const FlightEntry* entry = inside_.at(rank);
    if (entry == nullptr || !is_communication(*entry)) return {};
    const auto* group = group_of(rank, *entry);
    if (group == nullptr) return {};
    if (entry->kind == Kind::kMessage) {
      const bool known = entry->peer >= 0 && entry->peer < static_cast<int>(group->ranks.size());
      return known ? std::set<int>{group->ranks[static_cast<size_t>(entry->peer)]} : std::set<int>{};
    }
    std::set<int> absent;
    for (const int member : group->ranks) {
      if (member == rank) continue;
      const FlightEntry* theirs = collective_of(member, group->name, entry->sequence);
      if (theirs == nullptr || theirs->sequence < entry->sequence) absent.insert(member);
    }
    return absent;
  }

  // Follows who waits for whom from every rank that waits.
  void find_culprits() {
    std::set<int> seen;
    std::vector<int> next;
    for (const auto& [rank, awaited] : waits_for_) next.insert(next.end(), awaited.begin(), awaited.end());
    while (!next.empty()) {
      const int rank = next.back();
      next.pop_back();
      if (!seen.insert(rank).second) continue;
      const auto waits = waits_for_.find(rank);
      if (waits == waits_for_.end() || waits->second.empty()) culprits_.insert(rank);
      else next.insert(next.end(), waits->second.begin(), waits->second.end());
    }
    if (culprits_.empty()) circle_ = seen;
  }

  [[nodiscard]] std::string name_of(int rank, const FlightEntry& e) const {
    std::string text(e.name.view());
    const auto* group = group_of(rank, e);
    switch (e.kind) {
      case Kind::kCollective:
        text += fmt::format(" #{} of {}", e.sequence, group != nullptr ? group->name : "an unknown group");
        if (e.bucket >= 0) text += fmt::format(" (bucket {})", e.bucket);
        break;
      case Kind::kMessage:
        if (group != nullptr && e.peer >= 0 && e.peer < static_cast<int>(group->ranks.size())) {
          text += fmt::format(" {} rank {}", text == "recv" ? "from" : "to", group->ranks[static_cast<size_t>(e.peer)]);
        }
        text += fmt::format(" (tag {} of {}, {} bytes)", e.tag, group != nullptr ? group->name : "an unknown group", e.bytes);
        if (const FlightEntry* action = action_around(rank, e)) text += " for the " + name_of(rank, *action);
        break;
      case Kind::kAction: text += fmt::format(" of micro-batch {} on stage {}", e.microbatch, e.stage); break;
      case Kind::kPhase:
      case Kind::kBackground: break;
    }
    return text;
  }

  // The action that waits for a message.
  [[nodiscard]] const FlightEntry* action_around(int rank, const FlightEntry& message) const {
    const FlightEntry* around = nullptr;
    for (const FlightEntry& e : by_rank_.at(rank)->recorded.entries) {
      if (e.kind == Kind::kAction && e.finished_us == 0 && e.posted_us <= message.waited_us) around = &e;
    }
    return around;
  }

  [[nodiscard]] std::string describe(int rank) const {
    const auto found = by_rank_.find(rank);
    if (found == by_rank_.end()) return "has left no dump: its process is stopped, or gone, or cannot write to the folder";
    const FlightDump& dump = *found->second;
    if (const FlightEntry* e = inside_.at(rank)) {
      const double since = dump.seconds_since(std::max(e->posted_us, e->waited_us));
      return fmt::format("{} {} since {:.1f} s{}", is_communication(*e) ? "waits in" : "is still in", name_of(rank, *e), since, step_of(dump));
    }
    const auto& entries = dump.recorded.entries;
    const auto last = std::max_element(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.finished_us < b.finished_us; });
    if (last == entries.end() || last->finished_us == 0) return "has recorded nothing";
    return fmt::format("is between operations since {:.1f} s: its last was {}{}", dump.seconds_since(last->finished_us), name_of(rank, *last), step_of(dump));
  }

  [[nodiscard]] std::string step_of(const FlightDump& dump) const {
    return dump.recorded.step == step() ? "" : fmt::format(", in step {}", dump.recorded.step);
  }

  // Of most ranks.
  [[nodiscard]] int64_t step() const {
    std::map<int64_t, int> votes;
    for (const auto& [rank, dump] : by_rank_) ++votes[dump->recorded.step];
    return std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
  }

  // Two ranks that called something else, or another size, as the same collective.
  [[nodiscard]] std::optional<std::string> mismatch() const {
    for (const auto& [rank, entry] : inside_) {
      if (entry == nullptr || entry->kind != Kind::kCollective || group_of(rank, *entry) == nullptr) continue;
      const auto* group = group_of(rank, *entry);
      for (const int member : group->ranks) {
        const FlightEntry* theirs = collective_of(member, group->name, entry->sequence);
        if (theirs == nullptr || theirs->sequence != entry->sequence) continue;
        if (theirs->name.view() == entry->name.view() && theirs->bytes == entry->bytes) continue;
        return fmt::format("ranks disagree about collective #{} of {}: rank {} calls {} of {} bytes, rank {} {} of {} bytes", entry->sequence, group->name, rank,
                           entry->name.view(), entry->bytes, member, theirs->name.view(), theirs->bytes);
      }
    }
    return std::nullopt;
  }

  [[nodiscard]] std::string headline() const {
    const std::string where = fmt::format("step {}: ", step());
    if (const auto found = mismatch()) return where + *found;
    std::map<std::string, std::set<int>> waiting;  // by what they wait in
    for (const auto& [rank, awaited] : waits_for_) {
      const bool direct = culprits_.empty() || std::ranges::any_of(awaited, [&](int other) { return culprits_.contains(other); });
      if (!awaited.empty() && direct) waiting[name_of(rank, *inside_.at(rank))].insert(rank);
    }
    std::string text;
    for (const auto& [what, ranks] : waiting) text += fmt::format("{}{} {} in {}", text.empty() ? "" : ", ", list_of(ranks), ranks.size() == 1 ? "waits" : "wait", what);
    if (text.empty()) return where + "no rank waits for another" + (missing().empty() ? "" : "; " + absent_text());
    if (culprits_.empty()) return fmt::format("{}{}; {} wait for each other in a circle", where, text, list_of(circle_));
    for (const int rank : culprits_) text += fmt::format("; rank {} {}", rank, describe(rank));
    return where + text;
  }

  [[nodiscard]] std::set<int> missing() const {
    std::set<int> missing;
    for (int rank = 0; rank < world_size_; ++rank) {
      if (!by_rank_.contains(rank)) missing.insert(rank);
    }
    return missing;
  }
  [[nodiscard]] std::string absent_text() const { return fmt::format("{} left no dump", list_of(missing())); }

  int world_size_ = 1;
  std::map<int, const FlightDump*> by_rank_;
  std::map<int, const FlightEntry*> inside_;     // null: between operations
  std::map<int, std::set<int>> waits_for_;
  std::set<int> culprits_, circle_;
};

}  // namespace

FlightFindings analyse_flight(std::span<const FlightDump> dumps) {
  PENSTOCK_CHECK(!dumps.empty(), "no dumps");
  return Analysis(dumps)();
}

std::string to_text(const FlightFindings& findings) {
  std::string text = findings.headline + "\n";
  for (const std::string& line : findings.ranks) text += "  " + line + "\n";
  return text;
}

}  // namespace penstock::cluster
