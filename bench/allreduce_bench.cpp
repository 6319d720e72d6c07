// All-reduce through Communicator beside Gloo's own, between processes of this host, by turns in the same run: allreduce_bench [--ranks 2] (docs/benchmarks.md).
#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "cluster/launch_env.h"
#include "cluster/process_group.h"
#include "comm/c10d_communicator.h"
#include "comm/c10d_compat.h"

namespace {

using namespace penstock;  // NOLINT: a program of one file

struct Options {
  int ranks = 2;
  int ranks_per_host = 0;  // 0: all on this one
  int64_t min_bytes = 1 << 10, max_bytes = 128 << 20;
  int repetitions = 20;
  int gloo_port = 0;
};

constexpr seconds kWait{300};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// As a program without Penstock would make it.
comm::compat::BackendPtr raw_gloo(const cluster::RankInfo& info, int port) {
  const auto store = comm::compat::make_tcp_store(info.master_addr, port, info.rank == 0, kWait);
  auto options = ::c10d::ProcessGroupGloo::Options::create(kWait);
  options->devices.push_back(comm::compat::make_device("", info.master_addr));
  return c10::make_intrusive<::c10d::ProcessGroupGloo>(store, info.rank, info.world_size, options);
}

class Bench {
 public:
  Bench(const Options& options, const cluster::RankInfo& info) : options_(options), info_(info) {
    comm::C10dOptions connect;
    if (options.ranks_per_host > 0) connect.host = fmt::format("host {}", info.rank / options.ranks_per_host);
    world_ = comm::connect_c10d(info, connect);
    gloo_ = raw_gloo(info, options.gloo_port);
    buffer_ = world_->reduction_buffer(options.max_bytes, Deadline::after(kWait));
  }

  void operator()() {
    if (info_.rank == 0) {
      fmt::print("{} ranks, float32, medians; busbw = bytes / time * 2 (n - 1) / n\n", info_.world_size);
      fmt::print("{:>10} | {:>22} | {:>22} | {:>22} | {:>6}\n", "bytes", "Communicator", "in its buffer", "Gloo", "ratio");
    }
    for (int64_t bytes = options_.min_bytes; bytes <= options_.max_bytes; bytes *= 2) measure(bytes);
    world_->barrier()->wait(Deadline::after(kWait));
  }

 private:
  void measure(int64_t bytes) {
    at::Tensor ours = at::ones({bytes / 4}), theirs = at::ones({bytes / 4});
    at::Tensor shared = buffer_.narrow(0, 0, bytes).view(at::kFloat);
    shared.fill_(1);
    const auto through = [&](at::Tensor& tensor) { world_->all_reduce(tensor, comm::Reduce::kMax)->wait(Deadline::after(kWait)); };
    const auto by_gloo = [&] {
      std::vector<at::Tensor> tensors = {theirs};
      ::c10d::AllreduceOptions options;
      options.reduceOp = ::c10d::ReduceOp::MAX;
      gloo_->allreduce(tensors, options)->wait();
    };
    const int repetitions = bytes <= (1 << 20) ? 5 * options_.repetitions : options_.repetitions;
    std::vector<double> us[3];
    for (int i = -5; i < repetitions; ++i) {
      const double times[] = {time_of([&] { through(ours); }), time_of([&] { through(shared); }), time_of(by_gloo)};
      for (int way = 0; i >= 0 && way < 3; ++way) us[way].push_back(times[way]);
    }
    TORCH_CHECK((ours == 1).all().item<bool>() && (shared == 1).all().item<bool>() && (theirs == 1).all().item<bool>());
    if (info_.rank != 0) return;
    const double bus = static_cast<double>(bytes) * 2 * (info_.world_size - 1) / info_.world_size * 1e-3;
    const auto cell = [&](double t) { return fmt::format("{:9.1f} us {:5.2f} GB/s", t, bus / t); };
    const double a = median(us[0]), b = median(us[1]), c = median(us[2]);
    fmt::print("{:>10} | {:>22} | {:>22} | {:>22} | {:6.2f}\n", bytes, cell(a), cell(b), cell(c), c / a);
    std::fflush(stdout);
  }

  // Of this rank, from a moment at which all are there.
  template <typename Operation>
  double time_of(Operation operation) {
    world_->barrier()->wait(Deadline::after(kWait));
    const auto start = Clock::now();
    operation();
    return 1e6 * to_seconds(Clock::now() - start);
  }

  const Options& options_;
  const cluster::RankInfo info_;
  std::unique_ptr<comm::Communicator> world_;
  comm::compat::BackendPtr gloo_;
  at::Tensor buffer_;
};

int spawn(const Options& options, int argc, char** argv) {
  cluster::RankGroupOptions group;
  group.num_ranks = options.ranks;
  group.cores_per_rank = 1;
  group.process.argv.assign(argv, argv + argc);
  group.process.argv[0] = std::filesystem::read_symlink("/proc/self/exe").string();
  group.process.argv.push_back(fmt::format("--gloo-port={}", cluster::free_tcp_port().value()));
  group.process.env = {"OMP_NUM_THREADS=1"};
  const auto ranks = cluster::RankGroup::spawn(group).value();
  int code = 0;
  while (!ranks->all_reported()) {
    const auto ended = ranks->wait_any(Deadline::after(seconds(1)));
    if (ended && !ended->status.success()) {
      code = 1;
      ranks->kill_all(seconds(1));
    }
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("All-reduce through Communicator beside raw Gloo's, between processes of this host");
  app.add_option("--ranks", options.ranks, "processes")->check(CLI::Range(2, 64))->capture_default_str();
  app.add_option("--ranks-per-host", options.ranks_per_host, "as if so many were on each machine; 0 = all on this one");
  app.add_option("--min-bytes", options.min_bytes)->check(CLI::Range(64, 1 << 30))->capture_default_str();
  app.add_option("--max-bytes", options.max_bytes)->check(CLI::Range(64, 1 << 30))->capture_default_str();
  app.add_option("--repetitions", options.repetitions, "of each size; five times as many up to 1 MiB")->check(CLI::Range(1, 100000))->capture_default_str();
  app.add_option("--gloo-port", options.gloo_port)->group("");
  CLI11_PARSE(app, argc, argv);
  try {
    const auto info = cluster::rank_from_environment().value();
    if (!info || options.gloo_port == 0) return spawn(options, argc, argv);
    Bench(options, *info)();
    return 0;
  } catch (const std::exception& failed) {
    fmt::print(stderr, "allreduce_bench: {}\n", failed.what());
    return 1;
  }
}
