#pragma once
// All that is known of a model before it is started.
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/error.h"
#include "config/model_config.h"
#include "config/server_config.h"
#include "frontend/handler_kind.h"
#include "frontend/model_store.h"
#include "text/sampling_defaults.h"

namespace penstock::frontend {

// The version of a model that says none, as in TorchServe.
inline constexpr const char* kDefaultVersion = "1.0";

struct ModelSpec {
  std::string name;
  std::string version = kDefaultVersion;
  std::string url;                 // as it was asked for: a folder's name in the model store, or a path
  std::filesystem::path source;    // the folder or the archive that it comes from
  std::filesystem::path downloaded;     // the archive, if it was fetched for this model: it goes with the model
  std::shared_ptr<const void> unpacked;  // keeps the folder of an archive
  config::ModelConfig config;
  std::string handler = "llm";
  HandlerKind handler_kind = HandlerKind::kText;
  std::string serialized_file;     // of the manifest; empty: not given
  std::string envelope;            // of the manifest, for Python handlers; empty: the server's service_envelope
  text::SamplingDefaults sampling_defaults;  // of `llm`, for requests of OpenAI's API
  bool is_default = false;         // config.properties says so
  bool loaded_at_startup = false;
};

// Reads the folder's model-config.yaml and, if it has one, MAR-INF/MANIFEST.json (TorchServe's archiver with --archive-format no-archive),
// whose modelName (where the folder has no name), modelVersion, handler, serializedFile, envelope and configFile count; then fills gaps from `entries`.
// Blocks: reads files.
// The handler is the first of: `handler` (of the management API), that of model-config.yaml, that of the manifest; without any, `llm` for a
// Hugging Face directory, else `torchscript` where there is a file for it.
// Errors: those of load_model_folder_config(); kInvalidArgument for a manifest that is not one; of `llm`, kInvalidArgument
// for a generation_config.json that read_sampling_defaults() refuses.
[[nodiscard]] Result<ModelSpec> read_model_spec(const ModelFolder& folder, std::span<const config::ModelEntry> entries,
                                                const std::string& handler = "");

// A version as it may stand in a path: the rules of check_model_name().
[[nodiscard]] std::optional<Error> check_model_version(std::string_view version);

}  // namespace penstock::frontend
