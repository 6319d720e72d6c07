// `penstock serve`: the command line of the front door.
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/log.h"
#include "commands.h"
#include "front_door.h"
#include "rpc/grpc_server.h"
#include "serve_options.h"

namespace penstock {
namespace {

void serve(ServeOptions options, const std::string& log_folder, bool snapshots) {
  init_logging("serve");
  rpc::route_grpc_log();
  std::signal(SIGPIPE, SIG_IGN);  // whoever read our stdout may go; the server stays
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may grow no further is an error of its write, as a full disk is
  std::optional<Error> failure;
  try {
    FrontDoorOptions door_options;
    if (snapshots) options.snapshot_folder = door_options.snapshot_folder = snapshot_folder(log_folder).string();
    door_options.config = read_server_config(options);
    door_options.log_folder = log_folder;
    FrontDoor door(std::move(door_options));
    door.run();
  } catch (const Error& wrong) {
    failure = wrong;  // told after the workers are gone, as the last line
  }
  if (failure) fail("serve", *failure);
}

}  // namespace

void add_serve_command(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  auto log_folder = std::make_shared<std::string>("logs");
  auto disable_token_auth = std::make_shared<bool>(false);
  auto snapshots = std::make_shared<bool>(false);
  auto* command = app.add_subcommand("serve", "Serve models over gRPC, with TorchServe's inference and management API");
  command->add_option("--models", options->models, "NAME=FOLDER, NAME=ARCHIVE or NAME ..., or all. With a model store, they lie inside it")
      ->type_name("MODEL ...");
  command->add_option("--model-store", options->model_store, "Folder of model folders and archives (.mar, .tar.gz, .tgz, .zip)")->type_name("DIR");
  command->add_option("--ts-config", options->ts_config, "TorchServe's config.properties; flags override it")->type_name("FILE");
  command->add_option("--set", options->overrides, "A key of config.properties, as KEY=VALUE; may be repeated")->type_name("KEY=VALUE")->allow_extra_args(false);
  command->add_option("--port", options->port, "gRPC port; 0 = any free one (default 7070)")->check(CLI::Range(0, 65535));
  command->add_flag("--enable-model-api", options->enable_model_api, "Models may be registered and unregistered through the management API");
  command->add_flag("--disable-token-auth", *disable_token_auth, "Nobody is asked for a token, whatever the configuration says");
  command->add_flag("--snapshots", *snapshots,
                    "Save what is served at start, at every change and at the end, to LOG-DIR/config; without --ts-config, start from the last one");
  command->add_option("--address", options->address, "Address to listen on (default 127.0.0.1: this machine only)")->type_name("HOST");
  command->add_option("--log-dir", *log_folder, "Workers log to DIR/MODEL-GROUP/rank-R.log")->capture_default_str();
  command->footer("A model folder holds a Hugging Face directory and, if need be, TorchServe's model-config.yaml.\n"
                  "Examples:\n"
                  "  penstock serve --models tiny=runs/tiny/model\n"
                  "  penstock serve --model-store models --models all --port 7171\n"
                  "  penstock serve --ts-config config.properties\n"
                  "Ctrl-C or SIGTERM lets running requests finish (30 s), then ends with exit code 0; a second one ends at once.");
  command->callback([options, log_folder, snapshots, disable_token_auth] {
    if (*disable_token_auth) options->overrides.emplace_back("disable_token_authorization=true");
    serve(*options, *log_folder, *snapshots);
  });
}

}  // namespace penstock
