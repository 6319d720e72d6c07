// `penstock agent`: the command line of a machine that lends itself to a front door on another one.
#include <unistd.h>

#include <climits>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "agent_token.h"
#include "base/file.h"
#include "base/log.h"
#include "cluster/device_assignment.h"
#include "commands.h"
#include "config/http_address.h"
#include "rpc/grpc_server.h"
#include "worker_agent.h"
#include "worker_program.h"

namespace penstock {
namespace {

constexpr size_t kMaxPemBytes = 1 << 20;

struct AgentFlags {
  std::string front_door;
  std::string token_file;
  std::string ca_file, certificate_file, private_key_file;
  bool no_token = false;
  std::string name;
  std::string log_folder = "agent-logs";
};

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  (void)::gethostname(name, sizeof name - 1);
  return *name != '\0' ? name : "agent";
}

std::string pem(const std::string& file) { return file.empty() ? "" : read_file(file, kMaxPemBytes).value(); }

WorkerAgentOptions read_options(const AgentFlags& flags) {
  WorkerAgentOptions options;
  const auto address = config::parse_http_address("http://" + flags.front_door);
  if (!address || address.value().port == 0) throw error(Code::kInvalidArgument, "--front-door: expected HOST:PORT, found '{}'", flags.front_door);
  options.front_door_host = address.value().host;
  options.front_door.address = flags.front_door;
  const bool loopback = config::is_loopback(options.front_door_host);
  const bool certificate = !flags.certificate_file.empty();
  if (certificate && (flags.ca_file.empty() || flags.private_key_file.empty())) {
    throw Error(Code::kInvalidArgument, "--certificate-file needs --private-key-file, and --ca-file, by which the front door proves itself");
  }
  if (!flags.token_file.empty()) options.front_door.token = read_agent_token(flags.token_file, "--token-file").value();
  else if (!certificate && !(flags.no_token && loopback)) {
    throw Error(Code::kInvalidArgument, "an agent runs programs for whoever it takes for its front door; give the token that both share with --token-file FILE, or "
                "certificates with --ca-file, --certificate-file and --private-key-file (--no-token: only on this machine, 127.0.0.1)");
  }
  options.front_door.authorities = pem(flags.ca_file);
  options.front_door.certificates = pem(flags.certificate_file);
  options.front_door.private_key = pem(flags.private_key_file);
  options.offer = {flags.name.empty() ? host_name() : flags.name, cluster::visible_devices(), cluster::core_names()};
  options.log_folder = std::filesystem::absolute(flags.log_folder);
  options.program = find_worker_program();
  return options;
}

void run(const AgentFlags& flags) {
  init_logging("agent");
  rpc::route_grpc_log();
  std::signal(SIGPIPE, SIG_IGN);
  std::optional<Error> failure;
  try {
    const WorkerAgentOptions options = read_options(flags);
    if (options.front_door.authorities.empty() && !config::is_loopback(options.front_door_host)) {
      spdlog::warn("the connection to {} is not encrypted: whoever can read it learns the token; --ca-file speaks TLS (docs/security.md)", flags.front_door);
    }
    run_worker_agent(options);
  } catch (const Error& wrong) {
    failure = wrong;  // told after the ranks are gone, as the last line
  }
  if (failure) fail("agent", *failure);
}

}  // namespace

void add_agent_command(CLI::App& app) {
  auto flags = std::make_shared<AgentFlags>();
  auto* command = app.add_subcommand("agent", "Lend this machine to a front door on another one, for worker groups on several machines");
  command->add_option("--front-door", flags->front_door, "HOST:PORT of the front door's agents' port (its key agent_address)")->required();
  command->add_option("--token-file", flags->token_file, "The secret that both share; only its owner may read the file")->type_name("FILE");
  command->add_option("--ca-file", flags->ca_file, "Speak TLS, with a front door whose certificate these PEM authorities have signed")->type_name("FILE");
  command->add_option("--certificate-file", flags->certificate_file, "PEM: shown to a front door that asks for certificates")->type_name("FILE");
  command->add_option("--private-key-file", flags->private_key_file, "PEM: the key of --certificate-file, without a password")->type_name("FILE");
  command->add_flag("--no-token", flags->no_token, "Join a front door on this machine that asks for none");
  command->add_option("--name", flags->name, "What the front door calls this machine (default: its host name)");
  command->add_option("--log-dir", flags->log_folder, "Ranks log to DIR/MODEL-GROUP/rank-R.log")->type_name("DIR")->capture_default_str();
  command->footer("The front door says which ranks run here. A model's files must lie at the same path on every machine.\n"
                  "Examples:\n"
                  "  (umask 077; openssl rand -hex 32 > agent_token)           once; copy it to both machines\n"
                  "  penstock serve --models big=/models/big --set agent_address=0.0.0.0:7072 --set agent_token_file=agent_token      on host1\n"
                  "  penstock agent --front-door host1:7072 --token-file agent_token                                                  on host2\n"
                  "  penstock agent --front-door host1:7072 --token-file agent_token --ca-file ca.pem                                 the same, by TLS\n"
                  "Its ranks end within 5 s when the front door or the connection is lost; then it joins again. Ctrl-C or SIGTERM ends it.");
  command->callback([flags] { run(*flags); });
}

}  // namespace penstock
