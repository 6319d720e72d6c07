// One rank of a job that repeats a collective until it fails, for collective_death_test.cpp: collective_rank COLLECTIVE RANKS_PER_HOST [SECONDS_TO_CONNECT], the rank by
// environment.
// Says READY when the collective has worked once, and FAILED with the error. RANKS_PER_HOST: as if so many were on each machine.
// COLLECTIVE sockets: says how many sockets this process has, before and after it talks to a neighbour.
// COLLECTIVE stay: meets the others and stays until it is killed.
#include <ATen/ATen.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <thread>

#include "base/error.h"
#include "cluster/launch_env.h"
#include "comm/c10d_communicator.h"
#include "comm/flat_parts.h"

namespace {

using namespace penstock;  // NOLINT: a program of one file
using comm::Communicator;
using comm::WorkPtr;

void say(const std::string& text) {
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

int count_sockets() {
  int count = 0;
  for (const auto& file : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code failed;
    if (std::filesystem::read_symlink(file.path(), failed).string().starts_with("socket:")) ++count;
  }
  return count;
}

void talk_to_a_neighbour(Communicator& world, Deadline deadline) {
  world.barrier()->wait(deadline);
  const int before = count_sockets();
  at::Tensor tensor = at::ones({4});
  const int peer = world.rank() ^ 1;
  for (int tag = 0; tag < 3; ++tag) {
    const WorkPtr sent = world.send(tensor, peer, tag);
    world.recv(tensor, peer, tag)->wait(deadline);
    sent->wait(deadline);
  }
  world.barrier()->wait(deadline);
  say(fmt::format("SOCKETS {} then {}", before, count_sockets()));
  world.barrier()->wait(deadline);
}

void repeat(Communicator& world, const std::string& name) {
  constexpr int64_t kCount = 1 << 20;
  const std::vector<int64_t> offsets = comm::even_parts(kCount, world.size());
  at::Tensor flat = at::ones({kCount}), residual = at::zeros({kCount});
  at::Tensor shared = world.reduction_buffer(kCount * 4, Deadline::after(seconds(60))).narrow(0, 0, kCount * 4).view(at::kFloat);
  const std::map<std::string, std::function<WorkPtr()>> collectives = {
      {"all_reduce", [&] { return world.all_reduce(flat, comm::Reduce::kMax); }},
      {"in_buffer", [&] { return world.all_reduce(shared, comm::Reduce::kMax); }},
      {"reduce_scatter", [&] { return world.reduce_scatter(flat, offsets); }},
      {"all_gather", [&] { return world.all_gather(flat, offsets); }},
      {"rounded", [&] { return world.all_reduce_rounded(flat, residual); }},
      {"broadcast", [&] { return world.broadcast(flat, 0); }},
  };
  for (bool first = true;; first = false) {
    collectives.at(name)()->wait(Deadline::after(seconds(20)));
    if (first) say("READY");
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const cluster::RankInfo info = cluster::rank_from_environment().value().value();
    comm::C10dOptions options;
    const int ranks_per_host = std::stoi(argv[2]);
    if (ranks_per_host > 0) options.host = fmt::format("host {}", info.rank / ranks_per_host);
    if (argc > 3) options.connect_timeout = seconds(std::stoi(argv[3]));
    const auto world = comm::connect_c10d(info, options);
    if (std::string(argv[1]) == "sockets") {
      talk_to_a_neighbour(*world, Deadline::after(seconds(60)));
    } else if (std::string(argv[1]) == "stay") {
      for (;;) std::this_thread::sleep_for(seconds(1));
    } else {
      repeat(*world, argv[1]);
    }
    return 0;
  } catch (const Error& failed) {
    say("FAILED " + failed.message());
    ::_exit(75);
  } catch (const std::exception& failed) {
    say(std::string("UNEXPECTED ") + failed.what());
    ::_exit(1);
  }
}
