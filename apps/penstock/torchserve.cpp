#include "torchserve.h"

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include <CLI/CLI.hpp>

#include "background.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "cluster/pid_file.h"
#include "config/environment.h"
#include "front_door.h"
#include "rpc/grpc_server.h"
#include "serve_options.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using cluster::PidFile;

// The TorchServe whose behaviour is followed; scripts compare it.
constexpr const char* kTorchServeVersion = "0.12.0";
// How long --stop waits for the server's end. Without --foreground just so long as an idle server takes.
constexpr seconds kStopForeground{60};
constexpr seconds kStopBackground{2};
// A server that was told to stop lets its requests finish; the next one waits for it.
constexpr seconds kPredecessor{60};

struct Flags {
  ServeOptions serve;
  bool start = false;
  bool stop = false;
  bool version = false;
  bool foreground = false;
  bool no_config_snapshots = false;
  bool disable_token_auth = false;
  std::string workflow_store, log_config, cpp_log_config, plugins_path;
};

// Where Python's tempfile, and with it TorchServe, puts the file.
fs::path pid_file() {
  const auto environment = config::process_environment();
  for (const char* name : {"TMPDIR", "TEMP", "TMP"}) {
    std::error_code ignored;
    const auto folder = environment(name);
    if (folder && fs::is_directory(*folder, ignored)) return fs::path(*folder) / ".model_server.pid";
  }
  return "/tmp/.model_server.pid";
}

void say(const std::string& sentence) {
  fmt::print("{}\n", sentence);
  std::fflush(stdout);
}

int stop(bool foreground) {
  const fs::path path = pid_file();
  std::error_code ignored;
  const bool is_there = fs::exists(path, ignored);
  const auto holder = PidFile::holder(path).value();
  if (!holder) {
    say(is_there ? "TorchServe already stopped." : "TorchServe is not currently running.");
    if (is_there) fs::remove(path, ignored);
    return 0;
  }
  if (const auto failure = PidFile::stop(path, *holder)) throw *failure;
  if (PidFile::wait_free(path, Deadline::after(foreground ? kStopForeground : kStopBackground))) {
    say("TorchServe has stopped.");
    return 0;
  }
  say(foreground ? "Stopping TorchServe took too long." : "TorchServe is stopping: it lets its requests finish.");
  return foreground ? 1 : 0;
}

// Why no server may be started now; nullopt: it may.
std::optional<std::string> obstacle(const Flags& flags) {
  std::error_code ignored;
  const ServeOptions& serve = flags.serve;
  if (!serve.ts_config.empty() && !fs::is_regular_file(serve.ts_config, ignored)) return "--ts-config file not found: " + serve.ts_config;
  if (!serve.model_store.empty() && !fs::is_directory(serve.model_store, ignored)) return "--model-store directory not found: " + serve.model_store;
  const fs::path path = pid_file();
  const auto holder = PidFile::holder(path).value();
  if (!holder) {
    if (fs::exists(path, ignored)) say("Removing orphan pid file.");  // PidFile::take() takes it over
    return std::nullopt;
  }
  const bool gone = holder->told_to_stop && PidFile::wait_free(path, Deadline::after(kPredecessor));
  return gone ? std::nullopt : std::optional<std::string>("TorchServe is already running, please use torchserve --stop to stop TorchServe.");
}

void tell_idle_flags(const Flags& flags) {
  const std::pair<const char*, const std::string&> idle[] = {
      {"--log-config: not applicable: it is for TorchServe's Java logger; PENSTOCK_LOG=debug makes the log say more", flags.log_config},
      {"--cpp-log-config: not applicable: it is for TorchServe's C++ workers", flags.cpp_log_config},
      {"--plugins-path: not applicable: TorchServe's plugins are Java programs", flags.plugins_path},
      {"--workflow-store: not supported: workflows", flags.workflow_store},
  };
  for (const auto& [note, value] : idle) {
    if (!value.empty()) spdlog::warn("{}", note);
  }
}

FrontDoorOptions front_door_options(Flags flags) {
  for (std::string& model : flags.serve.models) {
    if (model == "ALL") model = "all";
  }
  if (flags.disable_token_auth) flags.serve.overrides.emplace_back("disable_token_authorization=true");
  FrontDoorOptions options;
  options.log_folder = config::process_environment()("LOG_LOCATION").value_or("logs");
  if (!flags.no_config_snapshots) flags.serve.snapshot_folder = options.snapshot_folder = snapshot_folder(options.log_folder).string();
  options.config = read_server_config(flags.serve);
  options.wait_for_models = false;
  options.keys_by_default = true;
  options.log_files = true;
  options.how_to_stop = "torchserve --stop";
  return options;
}

int start(const Flags& flags) {
  if (const auto why_not = obstacle(flags)) {
    say(*why_not);
    return 1;
  }
  init_logging("torchserve");
  tell_idle_flags(flags);
  FrontDoorOptions options = front_door_options(flags);
  if (options.config.model_store.empty()) {
    say("Missing mandatory parameter --model-store");
    return 1;
  }
  std::optional<Background> background;
  if (!flags.foreground) background.emplace();
  // From here on in the process that serves, which until now has one thread.
  const PidFile file = std::move(PidFile::take(pid_file())).value();
  rpc::route_grpc_log();
  std::signal(SIGPIPE, SIG_IGN);  // whoever read our stdout may go; the server stays
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may grow no further is an error of its write, as a full disk is
  if (background) options.on_started = [&background] { background->tell_ready(); };
  FrontDoor(std::move(options)).run();
  return 0;
}

void add_flags(CLI::App& app, Flags& flags) {
  auto* start = app.add_flag("--start", flags.start, "Start the server (what happens without any of these three, too)");
  auto* stop = app.add_flag("--stop", flags.stop, "Stop the server; with --foreground wait up to 60 s for its end");
  auto* version = app.add_flag("-v,--version", flags.version, "Say the version");
  start->excludes(stop, version);
  stop->excludes(version);
  app.add_option("--ts-config", flags.serve.ts_config, "config.properties; the environment variable TS_CONFIG_FILE is stronger")->type_name("FILE");
  app.add_option("--model-store", flags.serve.model_store, "Folder of models; here or in config.properties")->type_name("DIR");
  app.add_option("--models", flags.serve.models, "What to load: NAME or NAME=PATH within the store, or all")
      ->type_name("MODEL ...")->expected(0, -1)->delimiter(',');
  app.add_flag("--foreground", flags.foreground, "Serve in the foreground");
  app.add_flag("--ncs,--no-config-snapshots", flags.no_config_snapshots, "Neither write nor read snapshots of the models that are loaded");
  app.add_flag("--dt,--disable-token-auth", flags.disable_token_auth, "Ask for no tokens");
  app.add_flag("--enable-model-api", flags.serve.enable_model_api, "Models may be registered and unregistered through the management API");
  app.add_option("--workflow-store", flags.workflow_store, "Not supported")->type_name("DIR");
  app.add_option("--log-config", flags.log_config, "Not applicable")->type_name("FILE");
  app.add_option("--cpp-log-config", flags.cpp_log_config, "Not applicable")->type_name("FILE");
  app.add_option("--ppath,--plugins-path", flags.plugins_path, "Not applicable")->type_name("PATH");
}

}  // namespace

int run_torchserve(int argc, char** argv) {
  CLI::App app{"Penstock with TorchServe's command line", "torchserve"};
  Flags flags;
  add_flags(app, flags);
  app.footer("The server goes into the background once it listens; models load meanwhile, and one that cannot be loaded does not stop the others.\n"
             "Example:\n  torchserve --start --model-store model_store --models tiny --ncs");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& wrong) {
    return app.exit(wrong) == 0 ? 0 : 2;  // 0: --help
  }
  try {
    if (flags.version) {
      say(fmt::format("TorchServe Version is {} (served by Penstock {})", kTorchServeVersion, PENSTOCK_VERSION));
      return 0;
    }
    return flags.stop ? stop(flags.foreground) : start(flags);
  } catch (const Error& failure) {
    std::fflush(stdout);
    fmt::print(stderr, "torchserve: {}\n", failure.message());
    return 1;
  }
}

}  // namespace penstock
