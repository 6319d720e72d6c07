#include "frontend/worker_command.h"

#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "config/environment.h"
#include "formats/gguf_model.h"

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;

constexpr int kDefaultBatchDelayMs = 100;  // as in TorchServe

// As penstock-worker takes it.
std::string_view dtype_name(config::ComputeType type) {
  switch (type) {
    case config::ComputeType::kFloat32: return "fp32";
    case config::ComputeType::kBfloat16: return "bf16";
    case config::ComputeType::kAuto: break;
  }
  return "auto";
}

// As penstock-worker takes it.
std::string_view quantization_name(config::Quantization quantization) {
  switch (quantization) {
    case config::Quantization::kInt8: return "int8";
    case config::Quantization::kInt4: return "int4";
    case config::Quantization::kNone: return "none";
    case config::Quantization::kAuto: break;
  }
  return "auto";
}

WorkerCommand plain(std::vector<std::string> arguments) { return {std::move(arguments), "--socket", {}, cluster::RankVariables::kRank}; }

std::optional<Error> check_program(const fs::path& program, const char* remedy) {
  if (::access(program.c_str(), X_OK) == 0) return std::nullopt;
  return error(Code::kNotFound, "there is no worker program {}; {}", program.string(), remedy);
}

Result<WorkerCommand> text_command(const ModelSpec& spec, const fs::path& program) {
  const config::HandlerConfig& handler = spec.config.handler;
  std::error_code ignored;
  if (!fs::exists(handler.model_path / "config.json", ignored) && !formats::holds_gguf(handler.model_path)) {
    return error(Code::kInvalidArgument,
                 "model '{}': no config.json in {}; expected a Hugging Face directory or a GGUF file there, or handler.model_path in model-config.yaml",
                 spec.name, handler.model_path.string());
  }
  std::vector<std::string> command = {program.string(), "serve", "--model", handler.model_path.string(), "--max-concurrent",
                                      std::to_string(handler.max_concurrent), "--dtype", std::string(dtype_name(handler.dtype))};
  if (handler.device != config::HandlerDevice::kAuto) command.insert(command.end(), {"--device", handler.device == config::HandlerDevice::kCuda ? "cuda" : "cpu"});
  if (handler.max_sequence_tokens > 0) {
    command.insert(command.end(), {"--max-sequence-tokens", std::to_string(handler.max_sequence_tokens)});
  }
  if (handler.quantization != config::Quantization::kNone) {
    command.insert(command.end(), {"--quantization", std::string(quantization_name(handler.quantization))});
  }
  // The worker knows which numbers its model can be divided into.
  if (spec.config.tensor_ranks() > 1) command.insert(command.end(), {"--tensor-ranks", std::to_string(spec.config.tensor_ranks())});
  if (handler.kv_cache_mb > 0) command.insert(command.end(), {"--kv-cache-mb", std::to_string(handler.kv_cache_mb)});
  if (handler.kv_cache_dtype != config::ComputeType::kAuto) command.insert(command.end(), {"--kv-cache-dtype", std::string(dtype_name(handler.kv_cache_dtype))});
  return plain(std::move(command));
}

Result<WorkerCommand> torchscript_command(const ModelSpec& spec, const fs::path& program) {
  const std::string name = spec.serialized_file.empty() ? "model.pt" : spec.serialized_file;
  const auto file = file_inside(spec.config.handler.model_path, name, fmt::format("model '{}': the torch.jit file", spec.name));
  if (!file) return file.error();
  return plain({program.string(), "torchscript", "--model", file.value().string(), "--name", spec.name,
                "--batch-size", std::to_string(spec.config.batch_size.value_or(1)),
                "--max-batch-delay-ms", std::to_string(spec.config.max_batch_delay_ms.value_or(kDefaultBatchDelayMs))});
}

Result<WorkerCommand> library_command(const ModelSpec& spec, const fs::path& program) {
  const fs::path& folder = spec.config.handler.model_path;
  const auto library = file_inside(folder, spec.handler, fmt::format("model '{}': the handler", spec.name));
  if (!library) return library.error();
  return plain({program.string(), "--library", library.value().string(), "--model", folder.string(), "--name", spec.name,
                "--max-concurrent", std::to_string(spec.config.handler.max_concurrent)});
}

bool is_one_process(const config::ModelConfig& config) {
  return config.parallel_type == config::ParallelType::kNone || config.parallel_type == config::ParallelType::kCustom;
}

// TorchServe's own worker, with a clear word where its package is missing. Exit code 2: it will never work.
constexpr const char* kPythonStarter = R"(
import os, runpy, sys
os.chdir(sys.argv.pop(1))
try:
    import ts
except ImportError:
    sys.stderr.write("this model's handler is Python, and there is no package 'ts' for it: pip install torchserve, or add it to PYTHONPATH\n")
    sys.exit(2)
sys.argv += ["--metrics-config", os.path.join(os.path.dirname(ts.__file__), "configs", "metrics.yaml")]
runpy.run_module("ts.model_service_worker", run_name="__main__", alter_sys=True)
)";

// The handler lies in the model's folder, where its process runs, or in the package. Without a parallelType, and with `custom`, it is one process that is no rank.
WorkerCommand python_command(const ModelSpec& spec) {
  const auto inherited = config::process_environment()("PYTHONPATH");
  const std::string folder = fs::absolute(spec.config.handler.model_path).string();
  std::string path = folder;
  if (inherited && !inherited->empty()) path += ":" + *inherited;
  return {{"python3", "-c", kPythonStarter, folder, "--sock-type", "unix"},
          "--sock-name",
          {"PYTHONPATH=" + path, "PYTHONUNBUFFERED=1", "TS_IPEX_ENABLE=false", "TS_IPEX_GPU_ENABLE=false"},
          is_one_process(spec.config) ? cluster::RankVariables::kNone : cluster::RankVariables::kTorchrun};
}

std::optional<Error> check_parallel(const ModelSpec& spec) {
  const config::ModelConfig& config = spec.config;
  const bool is_text = spec.handler_kind == HandlerKind::kText, is_python = spec.handler_kind == HandlerKind::kPython;
  if (is_text && config.parallel_type == config::ParallelType::kCustom) {
    return error(Code::kInvalidArgument, "model '{}': parallelType custom is for handlers that use several GPUs from one process; 'llm' takes pp, tp and pptp", spec.name);
  }
  if (!is_text && !is_python && config.num_ranks() > 1) {
    return error(Code::kInvalidArgument, "model '{}': parallelLevel {}: handler '{}' runs in one process; 'parallelType: custom' gives it several GPUs",
                 spec.name, config.num_ranks(), spec.handler.substr(0, 200));
  }
  if (is_python && config.torchrun.nnodes > 1) {
    return error(Code::kUnimplemented, "model '{}': torchrun.nnodes {}: the processes of a Python handler are on one machine, where the front door reaches "
                 "their sockets; expected 1", spec.name, config.torchrun.nnodes);
  }
  return std::nullopt;
}

}  // namespace

Result<fs::path> file_inside(const fs::path& folder, const std::string& name, const std::string& what) {
  std::error_code failed;
  const fs::path root = fs::canonical(folder, failed);
  if (failed) return error(Code::kInvalidArgument, "{}: there is no folder {}", what, folder.string());
  const fs::path file = fs::canonical(root / name, failed);
  if (failed || !fs::is_regular_file(file, failed)) {
    return error(Code::kInvalidArgument, "{}: there is no file '{}' in {}", what, name.substr(0, 200), root.string());
  }
  const bool inside = std::mismatch(root.begin(), root.end(), file.begin(), file.end()).first == root.end();
  if (inside) return file;
  return error(Code::kInvalidArgument, "{}: '{}' lies outside {}", what, name.substr(0, 200), root.string());
}

Result<WorkerCommand> worker_command(const ModelSpec& spec, const WorkerPrograms& programs) {
  if (auto wrong = check_parallel(spec)) return *wrong;
  if (spec.handler_kind == HandlerKind::kLibrary) {
    if (auto missing = check_program(programs.library, "it belongs beside penstock: build the target penstock-handler")) return *missing;
    return library_command(spec, programs.library);
  }
  if (spec.handler_kind == HandlerKind::kPython) return python_command(spec);
  const char* remedy = "build it (PENSTOCK_TORCH=ON), or name it by the environment variable PENSTOCK_WORKER";
  if (auto missing = check_program(programs.compute, remedy)) return *missing;
  return spec.handler_kind == HandlerKind::kText ? text_command(spec, programs.compute) : torchscript_command(spec, programs.compute);
}

}  // namespace penstock::frontend
