#include "train/checkpoint.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "model/parameter_io.h"
#include "weights/safetensors.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kManifest = "manifest.json";
constexpr const char* kPrefix = "step-";
constexpr const char* kUnfinished = ".writing";
constexpr size_t kMaxManifestBytes = 16 << 20;

std::string stage_file(int stage) { return fmt::format("stage-{:05d}.safetensors", stage); }

std::vector<weights::NamedTensor> tensors_of(const TrainState& state, Deadline deadline) {
  std::vector<weights::NamedTensor> tensors;
  for (size_t i = 0; i < state.parameters->size(); ++i) {
    const model::Parameter& p = (*state.parameters)[i];
    for (auto& [name, part] : model::stored_parts(p, p.value)) tensors.emplace_back(name, part);
    const auto moments = state.optimizer->moments(i, deadline);
    for (size_t k = 0; k < moments.size(); ++k) {
      for (auto& [name, part] : model::stored_parts(p, moments[k])) tensors.emplace_back(name + state.optimizer->moment_names()[k], part);
    }
  }
  return tensors;
}

void write_manifest(const fs::path& folder, const CheckpointPlace& place, const TrainState& state, const std::string& config_yaml) {
  json manifest;
  manifest["format"] = 1;
  manifest["step"] = state.position.step;
  manifest["elapsed_seconds"] = state.position.elapsed_seconds;
  manifest["tokens"] = state.position.tokens;
  manifest["config"] = config_yaml;
  for (int s = 0; s < place.pipe_ranks; ++s) manifest["files"][stage_file(s)] = fs::file_size(folder / stage_file(s));
  write_file_atomic(folder / kManifest, manifest.dump(2));
}

// Finished checkpoints by name, oldest first: steps are written with leading zeros.
std::vector<fs::path> finished(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory() && name.starts_with(kPrefix) && !name.ends_with(kUnfinished)) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

Result<json> read_manifest(const fs::path& checkpoint) {
  auto text = read_file(checkpoint / kManifest, kMaxManifestBytes);
  if (!text) return text.error();
  json manifest = json::parse(*text, nullptr, false);
  const auto integer = [&](const char* key) { return manifest.contains(key) && manifest[key].is_number_integer() && manifest[key] >= 0; };
  if (!manifest.is_object() || !integer("format") || !integer("step") || !integer("tokens") || !manifest.contains("elapsed_seconds") ||
      !manifest["elapsed_seconds"].is_number() || !manifest.contains("files") || !manifest["files"].is_object()) {
    return error(Code::kDataLoss, "{}: not a checkpoint manifest", (checkpoint / kManifest).string());
  }
  if (manifest["format"] != 1) return error(Code::kDataLoss, "{}: format {}, this version reads 1", (checkpoint / kManifest).string(), manifest["format"].dump());
  for (const auto& [name, size] : manifest["files"].items()) {
    std::error_code absent;
    const auto found = fs::file_size(checkpoint / fs::path(name).filename(), absent);
    if (absent || !size.is_number_unsigned() || size != found) {
      return error(Code::kDataLoss, "{}: expected {} bytes, found {}", (checkpoint / name).string(), size.dump(), absent ? 0 : found);
    }
  }
  return manifest;
}

void remove_old(const fs::path& folder, int keep) {
  const auto all = finished(folder);
  for (size_t i = 0; i + static_cast<size_t>(keep) < all.size(); ++i) fs::remove_all(all[i]);
}

}  // namespace

void write_checkpoint(comm::Communicator& world, const CheckpointPlace& place, const TrainState& state, const std::string& config_yaml,
                      int keep, Deadline deadline) {
  const fs::path target = place.folder / fmt::format("{}{:08d}", kPrefix, state.position.step);
  fs::path unfinished = target;
  unfinished += kUnfinished;
  if (world.rank() == 0) {
    fs::remove_all(unfinished);
    fs::create_directories(unfinished);
  }
  world.barrier()->wait(deadline);
  if (place.writes) {
    weights::write_safetensors(unfinished / stage_file(place.pipe_rank), tensors_of(state, deadline));
  } else {
    for (size_t i = 0; i < state.parameters->size(); ++i) (void)state.optimizer->moments(i, deadline);  // sharded moments come from all replicas
  }
  world.barrier()->wait(deadline);
  if (world.rank() != 0) return;
  write_manifest(unfinished, place, state, config_yaml);
  fs::remove_all(target);  // a run that was resumed before this step writes it again
  fs::rename(unfinished, target);
  sync_path(place.folder);
  remove_old(place.folder, keep);
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder) {
  auto all = finished(folder);
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    auto manifest = read_manifest(*it);
    if (manifest) return *it;
    spdlog::warn("skipping an incomplete checkpoint: {}", manifest.error().message());
  }
  return std::nullopt;
}

std::string checkpoint_config(const fs::path& checkpoint) {
  const json manifest = read_manifest(checkpoint).value();
  if (manifest.contains("config") && manifest["config"].is_string()) return manifest["config"].get<std::string>();
  throw error(Code::kDataLoss, "{}: it has no text 'config'", (checkpoint / kManifest).string());
}

void read_checkpoint(const fs::path& checkpoint, TrainState& state) {
  const json manifest = read_manifest(checkpoint).value();
  std::vector<weights::SafetensorsFile> files;
  std::map<std::string, size_t> file_of;
  for (const auto& [name, size] : manifest["files"].items()) {
    files.push_back(weights::SafetensorsFile::open(checkpoint / fs::path(name).filename()));
    for (const std::string& tensor : files.back().names()) file_of[tensor] = files.size() - 1;
  }
  const auto lookup_with = [&](const char* suffix) {
    return [&, suffix](const std::string& name) {
      const auto found = file_of.find(name + suffix);
      if (found == file_of.end()) throw error(Code::kDataLoss, "{}: no tensor '{}{}'; is it of another model?", checkpoint.string(), name, suffix);
      return files[found->second].tensor(name + suffix);
    };
  };
  for (size_t i = 0; i < state.parameters->size(); ++i) {
    model::Parameter& p = (*state.parameters)[i];
    model::load_parameter(p, p.value, lookup_with(""));
    std::vector<at::Tensor> moments;
    for (const char* name : state.optimizer->moment_names()) model::load_parameter(p, moments.emplace_back(at::empty_like(p.value)), lookup_with(name));
    state.optimizer->set_moments(i, moments);
  }
  state.position = {manifest["step"].get<int64_t>(), manifest["elapsed_seconds"].get<double>(), manifest["tokens"].get<int64_t>()};
}

}  // namespace penstock::train
