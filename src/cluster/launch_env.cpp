#include "cluster/launch_env.h"

#include <algorithm>
#include <charconv>

namespace penstock::cluster {
namespace {

using config::Environment;

// The names under which one launcher tells a rank who it is.
struct Launcher {
  const char* rank;
  const char* world_size;
  const char* local_rank;
  const char* local_world_size;
};
constexpr Launcher kTorchrun = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr Launcher kOpenMpi = {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"};
// Kubernetes numbers the pods of an Indexed Job; how many there are, the manifest says.
constexpr Launcher kIndexedJob = {"JOB_COMPLETION_INDEX", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr const char* kSlurmRank = "SLURM_PROCID";
constexpr Launcher kMpich = {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};

// Set for the ranks that we start, also inside a launcher's job: they go by our numbers, not by the launcher's.
constexpr const char* kSpawnedMark = "PENSTOCK_SPAWNED";
// The same, set by torchrun.
constexpr const char* kTorchrunMark = "TORCHELASTIC_RUN_ID";

// True where torchrun's agent, and not rank 0, listens on MASTER_PORT.
constexpr const char* kAgentStore = "TORCHELASTIC_USE_AGENT_STORE";
constexpr const char* kJobId = "PENSTOCK_JOB_ID";

constexpr int kMaxRanks = 1 << 20;
// Ports that are made of a job's name: below those that systems hand out by themselves, from 32768 on.
constexpr uint32_t kFirstJobPort = 20000, kNumJobPorts = 12000;

// What one launcher said; local numbers may be missing.
struct Claim {
  const char* rank_name;
  const char* world_name;
  int rank;
  int world_size;
  std::optional<int> local_rank;
  std::optional<int> local_world_size;
};

std::optional<std::string> get(const Environment& environment, const char* name) {
  auto value = environment(name);
  if (value && value->empty()) return std::nullopt;
  return value;
}

// nullopt when not set; throws Error when not an integer of the range.
std::optional<int> integer(const Environment& environment, const char* name, int min, int max) {
  const auto text = get(environment, name);
  if (!text) return std::nullopt;
  int number = 0;
  const auto [end, problem] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (problem != std::errc() || end != text->data() + text->size() || number < min || number > max) {
    throw error(Code::kInvalidArgument, "environment variable {}: expected an integer from {} to {}, found '{}'", name, min, max,
                text->substr(0, 64));
  }
  return number;
}

Error half_set(const char* missing, const std::string& present) {
  return error(Code::kInvalidArgument, "environment variable {} is not set although {} is; set both, or neither", missing, present);
}

void check_order(const char* small_name, int small, const char* large_name, int large) {
  if (small < large) return;
  throw error(Code::kInvalidArgument, "environment variables {}={} and {}={} contradict each other: expected the first to be smaller",
              small_name, small, large_name, large);
}

std::optional<Claim> claim_of(const Environment& environment, const Launcher& names) {
  const auto rank = integer(environment, names.rank, 0, kMaxRanks);
  const auto world_size = integer(environment, names.world_size, 1, kMaxRanks);
  const auto local_rank = integer(environment, names.local_rank, 0, kMaxRanks);
  const auto local_world_size = integer(environment, names.local_world_size, 1, kMaxRanks);
  if (!rank && !world_size) {
    // Only torchrun's local names are plain enough to be set on purpose and by hand.
    if (local_rank && &names == &kTorchrun) throw half_set("RANK", "LOCAL_RANK");
    return std::nullopt;
  }
  if (!rank) throw half_set(names.rank, names.world_size);
  if (!world_size) throw half_set(names.world_size, names.rank);
  if (local_world_size && !local_rank) throw half_set(names.local_rank, names.local_world_size);
  check_order(names.rank, *rank, names.world_size, *world_size);
  if (local_rank && local_world_size) check_order(names.local_rank, *local_rank, names.local_world_size, *local_world_size);
  if (local_world_size) check_order(names.local_world_size, *local_world_size - 1, names.world_size, *world_size);
  if (local_rank) check_order(names.local_rank, *local_rank, names.world_size, *world_size);
  return Claim{names.rank, names.world_size, *rank, *world_size, local_rank, local_world_size};
}

// The entry of node `index` in Slurm's "4(x2),3": tasks by node, runs shortened. nullopt when the text is not of that form.
std::optional<int> tasks_of_node(std::string_view text, int index) {
  while (!text.empty()) {
    int tasks = 0, run = 1;
    const char* const end = text.data() + text.size();
    auto [next, problem] = std::from_chars(text.data(), end, tasks);
    if (problem != std::errc() || tasks < 1) return std::nullopt;
    if (end - next > 2 && next[0] == '(' && next[1] == 'x') {
      const auto [after, bad] = std::from_chars(next + 2, end, run);
      if (bad != std::errc() || run < 1 || after == end || *after != ')') return std::nullopt;
      next = after + 1;
    }
    if (index < run) return tasks;
    index -= run;
    text.remove_prefix(static_cast<size_t>(next - text.data()));
    if (!text.empty() && text.front() != ',') return std::nullopt;
    if (!text.empty()) text.remove_prefix(1);
  }
  return std::nullopt;
}

// The first host of "node[03-10,12],other": "node03".
std::string first_host(std::string_view list) {
  std::string host;
  for (size_t at = 0; at < list.size() && list[at] != ',';) {
    if (list[at] != '[') {
      host += list[at++];
      continue;
    }
    const size_t close = std::min(list.find(']', at), list.size());
    const std::string_view range = list.substr(at + 1, close - at - 1);
    host += range.substr(0, range.find_first_of(",-"));
    at = std::min(close + 1, list.size());
  }
  return host;
}

std::optional<Claim> slurm_claim(const Environment& environment) {
  // In a batch script, outside srun, SLURM_PROCID is 0 too; what tells the two apart is that there is a job but no step.
  if (get(environment, "SLURM_JOB_ID") && !get(environment, "SLURM_STEP_ID")) return std::nullopt;
  const char* world_name = get(environment, "SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  const auto rank = integer(environment, kSlurmRank, 0, kMaxRanks);
  const auto world_size = integer(environment, world_name, 1, kMaxRanks);
  if (!rank || world_size == 1) return std::nullopt;  // a single task, such as an interactive shell, may start ranks of its own
  if (!world_size) throw half_set("SLURM_NTASKS", kSlurmRank);
  check_order(kSlurmRank, *rank, world_name, *world_size);
  Claim claim{kSlurmRank, world_name, *rank, *world_size, integer(environment, "SLURM_LOCALID", 0, kMaxRanks), std::nullopt};
  const char* tasks_name = get(environment, "SLURM_STEP_TASKS_PER_NODE") ? "SLURM_STEP_TASKS_PER_NODE" : "SLURM_TASKS_PER_NODE";
  if (const auto tasks = get(environment, tasks_name); tasks && claim.local_rank) {
    claim.local_world_size = tasks_of_node(*tasks, integer(environment, "SLURM_NODEID", 0, kMaxRanks).value_or(0));
    if (!claim.local_world_size) {
      throw error(Code::kInvalidArgument,
                  "environment variable {}: expected tasks by node such as '4(x2),3' with node SLURM_NODEID, found '{}'", tasks_name,
                  tasks->substr(0, 64));
    }
    check_order("SLURM_LOCALID", *claim.local_rank, tasks_name, *claim.local_world_size);
  }
  return claim;
}

// RANK and WORLD_SIZE set by hand (or by a script) inside another launcher's job must say the same as that launcher.
void require_agreement(const Environment& environment, const Claim& first, const Claim& other) {
  if (get(environment, kSpawnedMark) || get(environment, kTorchrunMark)) return;
  if (other.world_size == 1 || (first.rank == other.rank && first.world_size == other.world_size)) return;
  throw error(Code::kInvalidArgument, "environment variables {}={}, {}={} contradict {}={}, {}={}; unset those that do not count",
              first.rank_name, first.rank, first.world_name, first.world_size, other.rank_name, other.rank, other.world_name,
              other.world_size);
}

std::string job_of(const Environment& environment, const Claim& claim) {
  if (const auto name = get(environment, kJobId)) return *name;
  const std::string_view launcher = claim.rank_name;
  std::optional<std::string> name;
  if (launcher == kTorchrun.rank) name = get(environment, kTorchrunMark);
  if (launcher == kOpenMpi.rank) name = get(environment, get(environment, "PMIX_NAMESPACE") ? "PMIX_NAMESPACE" : "OMPI_MCA_ess_base_jobid");
  if (launcher == kSlurmRank && (name = get(environment, "SLURM_JOB_ID"))) *name += "." + get(environment, "SLURM_STEP_ID").value_or("0");
  return name && *name != "none" ? *name : "";  // "none": torchrun's default
}

// FNV-1a: the same on every machine.
int port_of(const std::string& job) {
  uint32_t hash = 2166136261;
  for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619;
  return static_cast<int>(kFirstJobPort + hash % kNumJobPorts);
}

void refuse_agent_store(const Environment& environment) {
  if (get(environment, kSpawnedMark) || get(environment, kAgentStore) != "True") return;
  throw error(Code::kUnimplemented, "environment variable {}=True: torchrun listens on MASTER_PORT by itself, where rank 0 has to; start it with "
              "--rdzv-backend=c10d, and since PyTorch 2.4 with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1", kAgentStore);
}

bool is_loopback(const std::string& host) { return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0; }

RankInfo complete(const Environment& environment, const Claim& claim) {
  RankInfo info;
  info.rank = claim.rank;
  info.world_size = claim.world_size;
  const auto master = get(environment, "MASTER_ADDR");
  const auto nodes = get(environment, get(environment, "SLURM_STEP_NODELIST") ? "SLURM_STEP_NODELIST" : "SLURM_JOB_NODELIST");
  // Without local numbers: one machine if rank 0 listens on loopback or nowhere said, else one rank a machine.
  const bool one_machine = master ? is_loopback(*master) : !nodes;
  info.local_rank = claim.local_rank.value_or(one_machine ? claim.rank : 0);
  info.local_world_size = claim.local_world_size.value_or(one_machine ? claim.world_size : info.local_rank + 1);
  if (master) {
    info.master_addr = *master;
  } else if (info.local_world_size < info.world_size) {
    if (!nodes) {
      throw error(Code::kInvalidArgument,
                  "environment variable MASTER_ADDR is not set, but {}={} ranks are on several machines; set it to rank 0's host",
                  claim.world_name, claim.world_size);
    }
    info.master_addr = first_host(*nodes);
  }
  info.job = job_of(environment, claim);
  info.master_port = integer(environment, "MASTER_PORT", 1, 65535).value_or(info.job.empty() ? info.master_port : port_of(info.job));
  return info;
}

}  // namespace

Result<std::optional<RankInfo>> rank_from_environment(const Environment& environment) {
  try {
    const bool indexed_job = get(environment, kIndexedJob.rank) && !get(environment, kTorchrun.rank);
    const auto torchrun = indexed_job ? std::nullopt : claim_of(environment, kTorchrun);
    if (torchrun) refuse_agent_store(environment);
    std::optional<Claim> chosen = torchrun;
    for (const auto& other : {claim_of(environment, kOpenMpi), claim_of(environment, kMpich), slurm_claim(environment)}) {
      if (torchrun && other) require_agreement(environment, *torchrun, *other);
      if (!chosen) chosen = other;
    }
    // Last, and only with a WORLD_SIZE: a pod of an Indexed Job may as well start all ranks itself.
    if (!chosen && indexed_job && get(environment, kIndexedJob.world_size)) chosen = claim_of(environment, kIndexedJob);
    if (!chosen) return std::optional<RankInfo>();
    return std::optional<RankInfo>(complete(environment, *chosen));
  } catch (const Error& e) {
    return e;
  }
}

std::vector<std::string> rank_environment(const RankInfo& info) {
  return {
      fmt::format("RANK={}", info.rank),
      fmt::format("WORLD_SIZE={}", info.world_size),
      fmt::format("LOCAL_RANK={}", info.local_rank),
      fmt::format("LOCAL_WORLD_SIZE={}", info.local_world_size),
      fmt::format("MASTER_ADDR={}", info.master_addr),
      fmt::format("MASTER_PORT={}", info.master_port),
      fmt::format("{}=1", kSpawnedMark),
      fmt::format("{}={}", kJobId, info.job),
  };
}

std::vector<std::string> torchrun_environment(const RankInfo& info) {
  return {
      fmt::format("GROUP_RANK={}", info.rank / info.local_world_size),
      fmt::format("GROUP_WORLD_SIZE={}", (info.world_size + info.local_world_size - 1) / info.local_world_size),
      "ROLE_NAME=default",
      fmt::format("ROLE_RANK={}", info.rank),
      fmt::format("ROLE_WORLD_SIZE={}", info.world_size),
      "TORCHELASTIC_RESTART_COUNT=0",
      "TORCHELASTIC_MAX_RESTARTS=0",
      fmt::format("{}={}", kTorchrunMark, info.job),
      fmt::format("{}=False", kAgentStore),  // rank 0 listens on MASTER_PORT
  };
}

std::vector<std::string> rank_variable_names() {
  std::vector<std::string> names;
  for (const auto& variables : {rank_environment({}), torchrun_environment({})}) {
    for (const std::string& variable : variables) names.push_back(variable.substr(0, variable.find('=')));
  }
  return names;
}

}  // namespace penstock::cluster
