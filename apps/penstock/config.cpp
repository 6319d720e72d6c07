// `penstock config check`: reads configuration files as the commands would, and does nothing else.
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "commands.h"
#include "config/model_config.h"
#include "config/server_config.h"
#include "config/train_config.h"
#include "config/yaml_reader.h"

namespace penstock {
namespace {

enum class Kind { kServer, kModel, kTrain };

const char* to_string(Kind kind) {
  switch (kind) {
    case Kind::kServer: return "config.properties";
    case Kind::kModel: return "model-config.yaml";
    case Kind::kTrain: break;
  }
  return "training configuration";
}

struct CheckOptions {
  std::vector<std::string> files;
  std::string kind = "auto";
};

// By the name, and for YAML by the keys that only a training configuration has.
Result<Kind> kind_of(const std::filesystem::path& file, const std::string& wanted) {
  if (wanted != "auto") return wanted == "server" ? Kind::kServer : wanted == "model" ? Kind::kModel : Kind::kTrain;
  const std::string suffix = file.extension().string();
  if (suffix == ".properties" || suffix == ".cfg") return Kind::kServer;
  if (suffix != ".yaml" && suffix != ".yml") {
    return error(Code::kInvalidArgument, "{}: expected a name ending with .properties, .yaml or .yml; say what it is with --kind", file.string());
  }
  Result<std::vector<config::RawValue>> values = config::read_yaml(file);
  if (!values) return values.error();
  for (const config::RawValue& value : *values) {
    if (value.key == "output" || value.key == "data" || value.key == "mesh" || value.key == "optimizer") return Kind::kTrain;
  }
  return Kind::kModel;
}

// The notes of a file that is right.
Result<std::vector<std::string>> check(const std::filesystem::path& file, Kind kind) {
  if (kind == Kind::kServer) {
    auto config = config::load_server_config(file);
    if (!config) return config.error();
    return config->notes;
  }
  if (kind == Kind::kModel) {
    auto config = config::load_model_config(file);
    if (!config) return config.error();
    return config->notes;
  }
  auto config = config::load_train_config(file);
  if (!config) return config.error();
  return std::vector<std::string>();
}

void check_all(const CheckOptions& options) {
  bool all_right = true;
  for (const std::string& file : options.files) {
    Result<Kind> kind = kind_of(file, options.kind);
    Result<std::vector<std::string>> notes = kind ? check(file, *kind) : Result<std::vector<std::string>>(kind.error());
    if (!notes) {
      all_right = false;
      fmt::print(stderr, "{}\n", notes.error().message());
      continue;
    }
    for (const std::string& note : *notes) fmt::print("{}\n", note);
    fmt::print("{}: good ({})\n", file, to_string(*kind));
  }
  std::fflush(stdout);
  if (!all_right) throw CLI::RuntimeError(2);
}

}  // namespace

void add_config_command(CLI::App& app) {
  auto options = std::make_shared<CheckOptions>();
  auto* command = app.add_subcommand("config", "Check configuration files");
  command->require_subcommand(1);
  auto* check = command->add_subcommand("check", "Read files as the commands would: errors, and keys that do nothing and why");
  check->add_option("FILE", options->files, "config.properties, model-config.yaml, or a training configuration")->required();
  check->add_option("--kind", options->kind, "What the files are, when their names do not tell")
      ->check(CLI::IsMember({"auto", "server", "model", "train"}))
      ->capture_default_str();
  check->footer("Exit code 0 when every file is right, 2 when one is not.\n"
                "Example:\n  penstock config check config.properties model-store/*/model-config.yaml");
  check->callback([options] { check_all(*options); });
}

}  // namespace penstock
