#include "frontend/model_spec.h"

#include <algorithm>
#include <system_error>

#include "base/file.h"
#include "config/foreign_config.h"
#include "config/yaml_reader.h"
#include "frontend/archive.h"
#include "text/json_input.h"

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr size_t kManifestLimit = 1 << 20;  // bytes

struct Manifest {
  std::string name;
  std::string version = kDefaultVersion;
  std::string handler;          // empty: not given
  std::string serialized_file;
  std::string envelope;
  std::string config_file;      // empty: model-config.yaml, if it is there
};

// A text of the manifest; "" when it is absent.
Result<std::string> text_of(const Json& model, const char* key) {
  const auto found = model.find(key);
  if (found == model.end() || found->is_null()) return std::string();
  if (!found->is_string()) return error(Code::kInvalidArgument, "model.{}: expected text, found {}", key, found->type_name());
  return found->get<std::string>();
}

Result<Manifest> parse_manifest(const Json& json) {
  if (!json.is_object()) return Error(Code::kInvalidArgument, "expected a JSON object");
  const auto model = json.find("model");
  if (model == json.end() || !model->is_object()) return Error(Code::kInvalidArgument, "expected an object 'model'");
  Manifest manifest;
  auto name = text_of(*model, "modelName");
  if (!name) return name.error();
  manifest.name = *name;
  auto version = text_of(*model, "modelVersion");
  if (!version) return version.error();
  if (!version->empty()) manifest.version = *version;
  if (auto bad = check_model_version(manifest.version)) return *bad;
  auto handler = text_of(*model, "handler");
  if (!handler) return handler.error();
  manifest.handler = *handler;
  auto serialized = text_of(*model, "serializedFile");
  if (!serialized) return serialized.error();
  manifest.serialized_file = *serialized;
  auto envelope = text_of(*model, "envelope");
  if (!envelope) return envelope.error();
  manifest.envelope = *envelope;
  auto config = text_of(*model, "configFile");
  if (!config) return config.error();
  const fs::path relative = *config;
  if (relative.is_absolute() || std::find(relative.begin(), relative.end(), "..") != relative.end()) {
    return error(Code::kInvalidArgument, "model.configFile: expected a name inside the model's folder, found '{}'", config->substr(0, 200));
  }
  manifest.config_file = *config;
  return manifest;
}

// `handler` is the name of one, not the settings that Python handlers keep there. Such a name is stronger than the manifest's.
bool names_a_handler(const fs::path& file) {
  auto values = config::read_yaml(file);
  return values && std::ranges::any_of(*values, [](const config::RawValue& v) { return v.key == "handler" && v.kind == config::RawValue::Kind::kScalar; });
}

// A Python handler reads the same file, which may hold what only it knows.
Result<config::ModelConfig> read_config(const fs::path& folder, const Manifest& manifest, const std::string& handler) {
  std::error_code ignored;
  if (fs::is_regular_file(folder, ignored)) {  // a GGUF file
    config::ModelConfig config;
    config.handler.model_path = fs::absolute(folder).lexically_normal();
    return config;
  }
  const fs::path file = folder / (manifest.config_file.empty() ? "model-config.yaml" : manifest.config_file);
  const bool is_there = !manifest.config_file.empty() || fs::exists(file, ignored);
  const std::string& name = handler.empty() ? manifest.handler : handler;
  const bool is_python = !name.empty() && handler_kind(name) == HandlerKind::kPython;
  if (is_python && !(handler.empty() && is_there && names_a_handler(file))) {
    return config::load_foreign_model_config(folder, is_there ? file : fs::path());
  }
  return manifest.config_file.empty() ? config::load_model_folder_config(folder) : config::load_model_config(folder / manifest.config_file);
}

std::string default_handler(const ModelSpec& spec) {
  std::error_code ignored;
  const fs::path& folder = spec.config.handler.model_path;
  const bool has_jit_file = !spec.serialized_file.empty() || fs::exists(folder / "model.pt", ignored);
  return has_jit_file && !fs::exists(folder / "config.json", ignored) ? "torchscript" : "llm";
}

Result<Manifest> read_manifest(const fs::path& folder) {
  const fs::path file = folder / "MAR-INF" / "MANIFEST.json";
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return Manifest{};
  auto text = read_file(file, kManifestLimit);
  if (!text) return text.error();
  auto json = text::parse_json(*text, file.string(), Code::kInvalidArgument);
  if (!json) return json.error();
  auto manifest = parse_manifest(*json);
  if (!manifest) return error(manifest.error().code(), "{}: {}", file.string(), manifest.error().message());
  return manifest;
}

}  // namespace

std::optional<Error> check_model_version(std::string_view version) {
  if (!check_model_name(version)) return std::nullopt;
  return error(Code::kInvalidArgument, "model version '{}': expected 1 to 128 letters, digits, '.', '_' or '-', not beginning with '.' or '-'",
               version.substr(0, 200));
}

Result<ModelSpec> read_model_spec(const ModelFolder& folder, std::span<const config::ModelEntry> entries, const std::string& handler) {
  auto manifest = read_manifest(folder.folder);
  if (!manifest) return manifest.error();
  auto config = read_config(folder.folder, *manifest, handler);
  if (!config) return config.error();
  ModelSpec spec;
  spec.name = !folder.name.empty() ? folder.name : !manifest->name.empty() ? manifest->name : model_stem(folder.url);
  if (auto bad = check_model_name(spec.name)) return *bad;
  spec.source = folder.source;
  spec.unpacked = folder.unpacked;
  spec.version = manifest->version;
  spec.url = folder.url;
  spec.config = std::move(*config);
  spec.serialized_file = manifest->serialized_file;
  spec.envelope = manifest->envelope;
  for (const std::string& name : {handler, spec.config.handler.name, manifest->handler, default_handler(spec)}) {
    if (name.empty()) continue;
    spec.handler = name;
    break;
  }
  spec.handler_kind = handler_kind(spec.handler);
  if (spec.handler_kind == HandlerKind::kText && (spec.config.batch_size || spec.config.max_batch_delay_ms)) {
    spec.config.notes.push_back("batchSize, maxBatchDelay: not applicable to 'llm': batches are made anew at every token");
  }
  if (spec.handler_kind == HandlerKind::kText && spec.config.handler.generation_config) {
    auto defaults = text::read_sampling_defaults(spec.config.handler.model_path);
    if (!defaults) return error(Code::kInvalidArgument, "{}; mend the file, or say handler.generation_config: none", defaults.error().message());
    spec.sampling_defaults = *defaults;
  }
  for (const config::ModelEntry& entry : entries) {
    if (entry.name != spec.name || entry.version != spec.version) continue;
    spec.config.fill_gaps(entry.settings);
    spec.is_default = entry.is_default;
  }
  return spec;
}

}  // namespace penstock::frontend
