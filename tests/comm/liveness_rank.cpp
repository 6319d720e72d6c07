// One rank of a job that does nothing but wait for its peer, for rank_death_test.cpp: liveness_rank [leave], the rank by environment.
// With "leave", all ranks meet and end well.
#include <ATen/ATen.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "base/error.h"
#include "cluster/launch_env.h"
#include "comm/c10d_communicator.h"
#include "comm/liveness.h"

namespace {

using namespace penstock;  // NOLINT: a program of one file

void say(const std::string& text) {
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

void run(const cluster::RankInfo& info, bool leave) {
  const auto world = comm::connect_c10d(info);
  comm::LivenessOptions options;
  options.on_failure = [](const std::string& text) {
    say("VERDICT " + text);
    ::_exit(75);
  };
  comm::Liveness liveness(info, options);
  at::Tensor tensor = at::zeros({4});
  world->all_reduce(tensor, comm::Reduce::kSum)->wait(Deadline::after(seconds(60)));
  say("READY");
  if (leave) {
    liveness.post_done(Deadline::after(seconds(60)));
    return;
  }
  try {
    world->recv(tensor, (info.rank + 1) % info.world_size, 1)->wait(Deadline::after(seconds(600)));
  } catch (const Error& failed) {
    say("SYMPTOM " + failed.message());
    const auto cause = liveness.first_failure(Deadline::after(seconds(9)));
    say("CAUSE " + cause.value_or("unknown"));
    ::_exit(75);
  }
}

}  // namespace

int main(int argc, char**) {
  try {
    run(cluster::rank_from_environment().value().value(), argc > 1);
    return 0;
  } catch (const std::exception& failed) {
    say(std::string("FAILED ") + failed.what());
    return 1;
  }
}
