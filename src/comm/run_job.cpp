#include "comm/run_job.h"

#include <unistd.h>

#include <cstdio>
#include <string>

#include "base/error.h"
#include "cluster/launch_env.h"
#include "comm/c10d_communicator.h"
#include "comm/liveness.h"
#include "comm/spawn_ranks.h"

namespace penstock::comm {
namespace {

constexpr int kFailed = 1, kPeerFailed = 75;
constexpr seconds kCauseWait{8};     // until a silent death is known
constexpr seconds kTellWait{5};      // for the others to read why this rank leaves
constexpr std::chrono::hours kLongestWait{24 * 365};  // Liveness ends a wait for a rank that has died

[[noreturn]] void end_process(int rank, const std::string& text, int exit_code) {
  std::fflush(stdout);
  std::fprintf(stderr, "rank %d: %s\n", rank, text.c_str());
  std::fflush(stderr);
  ::_exit(exit_code);
}

// A communication that failed is a symptom; Liveness knows the cause.
[[noreturn]] void leave(Liveness& liveness, int rank, const std::string& text, bool symptom) {
  if (symptom) {
    if (const auto cause = liveness.first_failure(Deadline::after(kCauseWait))) {
      end_process(rank, fmt::format("leaving, because {} (seen here as: {})", *cause, text), kPeerFailed);
    }
  }
  liveness.post_failure(text, Deadline::after(kTellWait));
  end_process(rank, text, kFailed);
}

void run_as_process(const cluster::RankInfo& info, const std::function<void(Communicator&)>& body) {
  C10dOptions connect;
  connect.operation_timeout = kLongestWait;
  const auto world = connect_c10d(info, connect);
  LivenessOptions options;
  options.on_failure = [rank = info.rank](const std::string& text) { end_process(rank, "leaving, because " + text, kPeerFailed); };
  Liveness liveness(info, options);
  try {
    body(*world);
    world->barrier()->wait(Deadline::after(kLongestWait));  // nobody closes connections, or the store, that another still needs
  } catch (const Error& e) {
    leave(liveness, info.rank, e.message(), e.code() == Code::kUnavailable || e.code() == Code::kDeadlineExceeded);
  } catch (const std::exception& e) {
    leave(liveness, info.rank, e.what(), false);
  }
  liveness.post_done(Deadline::after(kLongestWait));
}

}  // namespace

void run_job(int size, const std::function<void(Communicator&)>& body) {
  const auto launched = cluster::rank_from_environment().value();
  if (!launched) return spawn_ranks(size, body);
  if (launched->world_size != size) {
    throw error(Code::kInvalidArgument, "the program needs {} ranks, the launcher started {}", size, launched->world_size);
  }
  run_as_process(*launched, body);
}

}  // namespace penstock::comm
