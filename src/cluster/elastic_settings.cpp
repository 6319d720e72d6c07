#include "cluster/elastic_settings.h"

#include <charconv>
#include <string_view>
#include <utility>

namespace penstock::cluster {
namespace {

constexpr int kMaxNodes = 65536, kMaxRanksPerNode = 4096, kMaxRestarts = 1000000, kMaxSeconds = 10'000'000;

// A text and where it stands, for messages.
struct Given {
  std::string text;
  std::string name;  // "--nnodes", "environment variable PET_NNODES"
};
using MaybeGiven = std::optional<Given>;

class Reader {
 public:
  Reader(const config::Environment& environment, bool use_environment) : environment_(environment), use_environment_(use_environment) {}

  MaybeGiven operator()(const std::optional<std::string>& flag, const char* flag_name, const char* variable) const {
    if (flag) return Given{*flag, flag_name};
    return use_environment_ ? this->variable(variable) : std::nullopt;
  }
  MaybeGiven variable(const char* name) const {
    const auto text = environment_(name);
    return text && !text->empty() ? MaybeGiven(Given{*text, fmt::format("environment variable {}", name)}) : std::nullopt;
  }

 private:
  const config::Environment& environment_;
  const bool use_environment_;
};

Error wrong(const Given& given, const std::string& expected) {
  return error(Code::kInvalidArgument, "{}: expected {}, found '{}'", given.name, expected, given.text.substr(0, 128));
}

int integer(const Given& given, std::string_view text, int min, int max) {
  int number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem == std::errc() && end == text.data() + text.size() && number >= min && number <= max) return number;
  throw wrong(given, fmt::format("an integer from {} to {}", min, max));
}

int integer(const Given& given, int min, int max) { return integer(given, given.text, min, max); }

void read_nodes(const Given& given, ElasticSettings& settings) {
  const std::string_view text = given.text;
  const size_t colon = text.find(':');
  settings.min_nodes = integer(given, text.substr(0, colon), 1, kMaxNodes);
  settings.max_nodes = colon == std::string_view::npos ? settings.min_nodes : integer(given, text.substr(colon + 1), 1, kMaxNodes);
  if (settings.min_nodes > settings.max_nodes) throw wrong(given, "MIN:MAX with MIN <= MAX");
}

// "host", "host:29400", "[::1]:29400".
void read_endpoint(const Given& given, ElasticSettings& settings) {
  std::string_view text = given.text;
  const size_t bracket = text.starts_with('[') ? text.find(']') : std::string_view::npos;
  const size_t colon = text.find(':', bracket == std::string_view::npos ? 0 : bracket);
  settings.host = bracket == std::string_view::npos ? text.substr(0, colon) : text.substr(1, bracket - 1);
  if (settings.host.empty()) throw wrong(given, "HOST:PORT");
  if (colon != std::string_view::npos) settings.port = integer(given, text.substr(colon + 1), 1, 65535);
}

void read_conf(const Given& given, ElasticSettings& settings) {
  int interval = 5, attempts = 3;
  for (std::string_view rest = given.text; !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view item = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    const size_t equals = std::min(item.find('='), item.size());
    const std::string_view key = item.substr(0, equals), value = item.substr(std::min(equals + 1, item.size()));
    if (key == "join_timeout") settings.join_timeout = seconds(integer(given, value, 1, kMaxSeconds));
    else if (key == "last_call_timeout") settings.last_call = seconds(integer(given, value, 0, kMaxSeconds));
    else if (key == "keep_alive_interval") interval = integer(given, value, 1, 3600);
    else if (key == "keep_alive_max_attempt") attempts = integer(given, value, 1, 1000);
    else throw wrong(given, "KEY=INTEGER,… of join_timeout, last_call_timeout, keep_alive_interval (all in seconds) and keep_alive_max_attempt");
  }
  settings.dead_after = seconds(interval) * attempts;
}

MaybeGiven endpoint_of(const Reader& read, const ElasticFlags& flags) {
  if (auto given = read(flags.rdzv_endpoint, "--rdzv-endpoint", "PET_RDZV_ENDPOINT")) return given;
  auto address = read(std::nullopt, "", "PET_MASTER_ADDR");
  if (const auto port = read(std::nullopt, "", "PET_MASTER_PORT"); address && port) address->text += ":" + port->text;
  return address;
}

MaybeGiven node_rank_of(const Reader& read, const ElasticFlags& flags) {
  if (auto given = read(flags.node_rank, "--node-rank", "PET_NODE_RANK")) return given;
  if (auto given = read.variable("SLURM_NODEID")) return given;
  return read.variable("JOB_COMPLETION_INDEX");
}

void refuse_without_nnodes(const ElasticFlags& flags) {
  const std::pair<const char*, const std::optional<std::string>&> dependent[] = {{"--nproc-per-node", flags.nproc_per_node}, {"--node-rank", flags.node_rank},
                                                                                 {"--rdzv-endpoint", flags.rdzv_endpoint},   {"--rdzv-id", flags.rdzv_id},
                                                                                 {"--rdzv-conf", flags.rdzv_conf}};
  for (const auto& [name, value] : dependent) {
    if (value) throw error(Code::kInvalidArgument, "{} is for a job of several machines; say of how many with --nnodes (for one machine, mesh.data and mesh.pipe are enough)", name);
  }
}

ElasticSettings read_settings(const Given& nnodes, const Reader& read, const ElasticFlags& flags) {
  ElasticSettings settings;
  read_nodes(nnodes, settings);
  if (const auto given = read(flags.nproc_per_node, "--nproc-per-node", "PET_NPROC_PER_NODE")) settings.nproc_per_node = integer(*given, 1, kMaxRanksPerNode);
  if (const auto given = read(flags.max_restarts, "--max-restarts", "PET_MAX_RESTARTS")) settings.max_restarts = integer(*given, 0, kMaxRestarts);
  if (const auto given = read(flags.rdzv_id, "--rdzv-id", "PET_RDZV_ID")) settings.job = given->text;
  if (const auto given = read(flags.rdzv_conf, "--rdzv-conf", "PET_RDZV_CONF")) read_conf(*given, settings);
  const auto endpoint = endpoint_of(read, flags);
  const auto node_rank = node_rank_of(read, flags);
  if (settings.max_nodes > 1 && (!endpoint || !node_rank)) {
    throw error(Code::kInvalidArgument, "{} {}: each machine also needs {}", nnodes.name, nnodes.text,
                endpoint ? "--node-rank, a number of its own from 0" : "--rdzv-endpoint HOST:PORT, the same everywhere: the machine of node rank 0 and a free port there");
  }
  if (!endpoint) settings.port = 0;
  if (endpoint) read_endpoint(*endpoint, settings);
  if (node_rank) settings.node_rank = integer(*node_rank, 0, kMaxNodes - 1);
  return settings;
}

}  // namespace

Result<std::optional<ElasticSettings>> elastic_settings(const ElasticFlags& flags, const config::Environment& environment) {
  const auto mark = environment("TORCHELASTIC_RUN_ID");
  const bool rank_of_torchrun = mark && !mark->empty();
  const Reader read(environment, !rank_of_torchrun);
  try {
    const auto nnodes = read(flags.nnodes, "--nnodes", "PET_NNODES");
    if (!nnodes) refuse_without_nnodes(flags);
    if (nnodes && rank_of_torchrun) {
      throw error(Code::kInvalidArgument, "--nnodes {}: this is a rank of torchrun (TORCHELASTIC_RUN_ID is set), which counts the machines itself; leave --nnodes to torchrun", nnodes->text);
    }
    return nnodes ? std::optional(read_settings(*nnodes, read, flags)) : std::nullopt;
  } catch (const Error& e) {
    return e;
  }
}

}  // namespace penstock::cluster
