#pragma once
// Who is next: jobs that wait, by priority, and fairly between clients.
#include <algorithm>
#include <array>
#include <cstddef>
#include <deque>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"

namespace penstock::frontend {

// A job of a higher priority goes before all of a lower one; those of lower ones wait, at most until their time is over.
enum class Priority { kLow, kNormal, kHigh };
inline constexpr size_t kNumPriorities = 3;
// "low", "normal" or "high"; kInvalidArgument for anything else.
[[nodiscard]] Result<Priority> parse_priority(std::string_view name);

// Within a priority, clients that wait take turns, one job each (round robin); the jobs of one client keep their order. The line is bounded. When it
// is full, a job that comes takes the place of the last one in the lowest priority of the client with most jobs there, if that priority is lower, or
// that client has at least two more than its own: so nobody who sends much keeps the others out.
//
// Threads: none of its own, no lock: the owner has one. Each operation takes constant time, but a join() into a full line and leave() look through the
// clients and a client's jobs. T: a shared_ptr, say; compared with ==.
template <typename T>
class WaitingLine {
 public:
  explicit WaitingLine(size_t most) : most_(most) {}

  struct Joined {
    bool accepted = false;
    std::optional<T> displaced = {};  // had to go for it
  };
  [[nodiscard]] Joined join(T job, Priority priority, const std::string& client);
  // One that has had its turn waits once more, before all others of its priority, even if the line is full.
  void join_again(T job, Priority priority, const std::string& client);
  // The next one; nullopt: nobody waits.
  [[nodiscard]] std::optional<T> next() {
    return next([](const T&) { return true; });
  }
  // The next one that may start; nullopt: nobody may. Those before it keep their places.
  template <typename MayStart>
  [[nodiscard]] std::optional<T> next(const MayStart& may_start);
  // Takes out one that waits.
  void leave(const T& job, Priority priority, const std::string& client);

  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  // In no particular order.
  template <typename Visit>
  void for_each(const Visit& visit) const;
  [[nodiscard]] std::vector<T> all() const;

 private:
  struct Client {
    std::string name;
    std::deque<T> jobs;  // never empty
  };
  using Turns = std::list<Client>;  // whose turn it is comes first
  struct Level {
    Turns turns;
    std::unordered_map<std::string, typename Turns::iterator> by_name;
  };
  void forget_if_idle(Level& level, typename Turns::iterator client);
  [[nodiscard]] std::optional<T> displace(Priority priority, const std::string& client);

  const size_t most_;
  size_t size_ = 0;
  std::array<Level, kNumPriorities> levels_;  // by Priority
};

template <typename T>
typename WaitingLine<T>::Joined WaitingLine<T>::join(T job, Priority priority, const std::string& client) {
  Joined joined;
  if (size_ >= most_) {
    joined.displaced = displace(priority, client);
    if (!joined.displaced) return joined;
  }
  Level& level = levels_[static_cast<size_t>(priority)];
  const auto [found, is_new] = level.by_name.try_emplace(client);
  if (is_new) found->second = level.turns.insert(level.turns.end(), Client{client, {}});
  found->second->jobs.push_back(std::move(job));
  size_ += 1;
  joined.accepted = true;
  return joined;
}

template <typename T>
void WaitingLine<T>::join_again(T job, Priority priority, const std::string& client) {
  Level& level = levels_[static_cast<size_t>(priority)];
  const auto [found, is_new] = level.by_name.try_emplace(client);
  if (is_new) found->second = level.turns.insert(level.turns.begin(), Client{client, {}});
  else level.turns.splice(level.turns.begin(), level.turns, found->second);
  found->second->jobs.push_front(std::move(job));
  size_ += 1;
}

template <typename T>
template <typename MayStart>
std::optional<T> WaitingLine<T>::next(const MayStart& may_start) {
  for (auto level = levels_.rbegin(); level != levels_.rend(); ++level) {
    for (auto client = level->turns.begin(); client != level->turns.end(); ++client) {
      const auto first = std::find_if(client->jobs.begin(), client->jobs.end(), may_start);
      if (first == client->jobs.end()) continue;
      T job = std::move(*first);
      client->jobs.erase(first);
      size_ -= 1;
      level->turns.splice(level->turns.end(), level->turns, client);  // the turn goes on; iterators stay valid
      forget_if_idle(*level, client);
      return job;
    }
  }
  return std::nullopt;
}

template <typename T>
void WaitingLine<T>::leave(const T& job, Priority priority, const std::string& client) {
  Level& level = levels_[static_cast<size_t>(priority)];
  const auto found = level.by_name.find(client);
  PENSTOCK_CHECK(found != level.by_name.end(), "a job of client '{}' leaves the line without having waited", client);
  auto& jobs = found->second->jobs;
  const auto place = std::find(jobs.begin(), jobs.end(), job);
  PENSTOCK_CHECK(place != jobs.end(), "a job of client '{}' leaves the line without having waited", client);
  jobs.erase(place);
  size_ -= 1;
  forget_if_idle(level, found->second);
}

template <typename T>
template <typename Visit>
void WaitingLine<T>::for_each(const Visit& visit) const {
  for (const Level& level : levels_) {
    for (const Client& client : level.turns) std::for_each(client.jobs.begin(), client.jobs.end(), visit);
  }
}

template <typename T>
std::vector<T> WaitingLine<T>::all() const {
  std::vector<T> jobs;
  for_each([&](const T& job) { jobs.push_back(job); });
  return jobs;
}

template <typename T>
void WaitingLine<T>::forget_if_idle(Level& level, typename Turns::iterator client) {
  if (!client->jobs.empty()) return;
  level.by_name.erase(client->name);
  level.turns.erase(client);
}

// Makes room for a job of this client, or answers null.
template <typename T>
std::optional<T> WaitingLine<T>::displace(Priority priority, const std::string& client) {
  for (size_t i = 0; i <= static_cast<size_t>(priority); ++i) {
    Level& level = levels_[i];
    if (level.turns.empty()) continue;
    const auto most = std::max_element(level.turns.begin(), level.turns.end(),
                                       [](const Client& a, const Client& b) { return a.jobs.size() < b.jobs.size(); });
    const auto own = level.by_name.find(client);
    const size_t own_jobs = own == level.by_name.end() ? 0 : own->second->jobs.size();
    if (i == static_cast<size_t>(priority) && most->jobs.size() < own_jobs + 2) return std::nullopt;
    T displaced = std::move(most->jobs.back());
    most->jobs.pop_back();
    size_ -= 1;
    forget_if_idle(level, most);
    return displaced;
  }
  return std::nullopt;
}

}  // namespace penstock::frontend
