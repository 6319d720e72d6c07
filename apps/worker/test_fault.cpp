#include "apps/worker/test_fault.h"

#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <optional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "config/environment.h"

namespace penstock {
namespace {

constexpr const char* kVariable = "PENSTOCK_TEST_FAULT";

struct Fault {
  std::string what;   // kill, stop, sleep, or milliseconds
  std::string where;
  int rank = 0;
  int64_t step = 0;
  int delay_ms = 0;
};

template <typename T>
bool parse_number(const std::string& text, T& value) {
  return std::from_chars(text.data(), text.data() + text.size(), value).ptr == text.data() + text.size() && !text.empty();
}

Fault parse_fault(const std::string& text) {
  std::vector<std::string> words{""};
  for (const char c : text) {
    if (c == ':') words.emplace_back();
    else words.back() += c;
  }
  Fault fault;
  const bool whole = words.size() == 4 && parse_number(words[2], fault.rank) && parse_number(words[3], fault.step);
  if (whole) {
    fault.what = words[0];
    fault.where = words[1];
    const bool known = fault.what == "kill" || fault.what == "stop" || fault.what == "sleep" || parse_number(fault.what, fault.delay_ms);
    if (known) return fault;
  }
  throw error(Code::kInvalidArgument, "{}: expected kill|stop|sleep|MILLISECONDS:PLACE:RANK:STEP, found '{}'", kVariable, text);
}

void carry_out(const Fault& fault) {
  if (fault.what == "kill") ::kill(::getpid(), SIGKILL);
  if (fault.what == "stop") ::kill(::getpid(), SIGSTOP);
  std::this_thread::sleep_for(fault.what == "sleep" ? milliseconds(std::chrono::hours(24)) : milliseconds(fault.delay_ms));
}

bool is_at(const Fault& fault, const FlightEntry& entry) {
  return fault.where == entry.name.view() || (fault.where == "reduction" && entry.bucket >= 0);
}

}  // namespace

void install_test_fault(FlightRecorder& recorder, int rank) {
  const auto text = config::process_environment()(kVariable);
  if (!text) return;
  const Fault fault = parse_fault(*text);
  if (fault.rank != rank) return;
  if (fault.where == "rendezvous") return carry_out(fault);
  recorder.set_on_begin([fault](const FlightEntry& entry, int64_t step) {
    if (step >= fault.step && is_at(fault, entry)) carry_out(fault);
  });
}

}  // namespace penstock
