#pragma once
// Tells whether a process of this machine has ended, also when its id has been given to another since. Torch-free.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::comm {

struct ProcessIdentity {
  std::string host;         // the machine's name, for people
  std::string pid_space;    // processes with the same one see each other's ids: this boot of the machine, and the container
  int64_t pid = 0;
  uint64_t start_ticks = 0;  // when it started; 0 when the system does not say

  [[nodiscard]] std::string to_text() const;  // one line, fields separated by tabs
  [[nodiscard]] static std::optional<ProcessIdentity> from_text(std::string_view text);
  bool operator==(const ProcessIdentity&) const = default;
};

[[nodiscard]] ProcessIdentity this_process();

// True only when it is certain: `process` shares the ids of `self`, which is this_process(), and is no more, or is a zombie, or its id is
// another process's now.
[[nodiscard]] bool has_ended(const ProcessIdentity& process, const ProcessIdentity& self);

}  // namespace penstock::comm
