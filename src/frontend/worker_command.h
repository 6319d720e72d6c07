#pragma once
// How a model's worker is started: which program, with which arguments. Pure, but for looking whether files are there.
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "cluster/process_group.h"
#include "frontend/model_spec.h"

namespace penstock::frontend {

// Where the programs lie; whether they are there matters only to models that need them.
struct WorkerPrograms {
  std::filesystem::path compute;  // penstock-worker: kText, kTorchscript
  std::filesystem::path library;  // penstock-handler: kLibrary
};

struct WorkerCommand {
  std::vector<std::string> arguments;      // the program first
  std::string socket_option = "--socket";  // to be followed by the socket's path
  std::vector<std::string> environment;    // "NAME=VALUE"
  cluster::RankVariables variables = cluster::RankVariables::kRank;
};

// Errors: kNotFound without the program; kInvalidArgument for a model whose folder lacks what its handler needs, or a parallelType that the handler
// cannot have; kUnimplemented.
[[nodiscard]] Result<WorkerCommand> worker_command(const ModelSpec& spec, const WorkerPrograms& programs);

// The file inside the folder that `name` says. kInvalidArgument, saying what of the model it is (`what`): it is not there, or lies outside,
// also by way of a link.
[[nodiscard]] Result<std::filesystem::path> file_inside(const std::filesystem::path& folder, const std::string& name, const std::string& what);

}  // namespace penstock::frontend
