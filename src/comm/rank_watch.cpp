#include "comm/rank_watch.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace penstock::comm {
namespace {

constexpr size_t kMaxTextBytes = 16 << 10;
constexpr std::string_view kStateNames[] = {"alive", "told", "failed", "done"};  // by RankState

}  // namespace

std::string Heartbeat::to_text() const {
  return fmt::format("{} {} {}", count, kStateNames[static_cast<size_t>(state)], text.substr(0, kMaxTextBytes));
}

std::optional<Heartbeat> Heartbeat::from_text(std::string_view text) {
  Heartbeat heartbeat;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), heartbeat.count);
  if (failed != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  for (size_t state = 0; state < std::size(kStateNames); ++state) {
    const std::string name = fmt::format(" {} ", kStateNames[state]);
    if (!text.starts_with(name)) continue;
    heartbeat.state = static_cast<RankState>(state);
    heartbeat.text = text.substr(name.size());
    return heartbeat;
  }
  return std::nullopt;
}

std::string describe_rank(int rank, const std::optional<ProcessIdentity>& process) {
  if (!process) return fmt::format("rank {}", rank);
  return fmt::format("rank {} (pid {} on {})", rank, process->pid, process->host);
}

RankWatch::RankWatch(int world_size, milliseconds dead_after, milliseconds start_after)
    : dead_after_(dead_after), start_after_(start_after), ranks_(static_cast<size_t>(world_size)) {}

void RankWatch::observe(int rank, const std::optional<Heartbeat>& heartbeat, milliseconds elapsed) {
  Watched& watched = this->watched(rank);
  if (left(watched)) return;
  const bool moved = heartbeat && (!watched.last || watched.last->count != heartbeat->count);
  if (moved) {
    watched.last = heartbeat;
    watched.silent = milliseconds(0);
    if (heartbeat->state == RankState::kFailed) die(rank, "failed: " + heartbeat->text);
    return;
  }
  watched.silent += elapsed;
  if (!watched.last && watched.silent >= start_after_) {
    die(rank, fmt::format("has not shown its first heartbeat within {:.1f} s", to_seconds(watched.silent)));
  } else if (watched.last && watched.silent >= dead_after_) {
    die(rank, fmt::format("has stopped answering for {:.1f} s", to_seconds(watched.silent)));
  }
}

void RankWatch::observe_end(int rank) {
  if (!left(watched(rank))) die(rank, "has ended without a word");
}

void RankWatch::die(int rank, const std::string& how) {
  watched(rank).dead = true;
  if (!verdict_) verdict_ = fmt::format("{} {}", describe_rank(rank, watched(rank).process), how);
}

bool RankWatch::left(const Watched& rank) const { return rank.dead || (rank.last && rank.last->state == RankState::kDone); }

bool RankWatch::all_told() const {
  return std::all_of(ranks_.begin() + 1, ranks_.end(),
                     [this](const Watched& rank) { return left(rank) || (rank.last && rank.last->state == RankState::kTold); });
}

bool RankWatch::all_left() const {
  return std::all_of(ranks_.begin() + 1, ranks_.end(), [this](const Watched& rank) { return left(rank); });
}

}  // namespace penstock::comm
