#include "formats/checkpoint_folder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "base/crc32.h"
#include "base/file.h"
#include "base/filesystem_error.h"
#include "base/log.h"
#include "formats/float_narrowing.h"
#include "formats/safetensors_header.h"

namespace penstock::formats {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kManifest = "manifest.json";
constexpr const char* kPrefix = "step-";
constexpr const char* kUnfinished = ".writing";
constexpr size_t kMaxManifestBytes = 64 << 20;
constexpr int kVersion = 3;  // 2: without a checksum of its own; 1: without those of tensors
constexpr const char* kChecksum = "crc32";

bool is_count(const json& value) { return value.is_number_integer() && value >= 0; }

// "NAME: BYTES" in version 1; with checksums since.
std::optional<CheckpointManifest::File> parse_file(const json& value) {
  if (value.is_number_unsigned()) return CheckpointManifest::File{value.get<uint64_t>(), {}};
  if (!value.is_object() || !value.contains("bytes") || !value["bytes"].is_number_unsigned() || !value.contains("crc32") || !value["crc32"].is_object()) return std::nullopt;
  CheckpointManifest::File file{value["bytes"].get<uint64_t>(), {}};
  for (const auto& [tensor, checksum] : value["crc32"].items()) {
    if (!checksum.is_number_unsigned()) return std::nullopt;
    file.tensors[tensor] = checksum.get<uint32_t>();
  }
  return file;
}

std::optional<CheckpointManifest> parse(const json& j) {
  const auto has = [&](const char* key, auto is) { return j.contains(key) && is(j[key]); };
  const auto number = [](const json& v) { return v.is_number(); };
  if (!j.is_object() || !has("step", is_count) || !has("tokens", is_count) || !has("elapsed_seconds", number) ||
      !has("config", [](const json& v) { return v.is_string(); }) || !has("files", [](const json& v) { return v.is_object(); })) {
    return std::nullopt;
  }
  CheckpointManifest manifest;
  manifest.step = j["step"];
  manifest.tokens = j["tokens"];
  manifest.elapsed_seconds = j["elapsed_seconds"];
  manifest.config = j["config"];
  if (has("validation_loss", number)) manifest.validation_loss = j["validation_loss"].get<double>();
  if (has("skipped_steps", is_count)) manifest.skipped_steps = j["skipped_steps"];
  if (has("loss_scale", [](const json& value) { return value.is_number() && value >= 0; })) manifest.loss_scale = j["loss_scale"];
  if (has("loss_scale_good_steps", is_count)) manifest.loss_scale_good_steps = j["loss_scale_good_steps"];
  if (has("overflowed_steps", is_count)) manifest.overflowed_steps = j["overflowed_steps"];
  if (has("skipped_in_a_row", is_count)) manifest.skipped_in_a_row = j["skipped_in_a_row"];
  for (const json& loss : has("recent_losses", [](const json& v) { return v.is_array(); }) ? j["recent_losses"] : json::array()) {
    if (!loss.is_number()) return std::nullopt;
    manifest.recent_losses.push_back(loss);
  }
  const json description = j.value("description", json::object());
  if (!description.is_object()) return std::nullopt;
  for (const auto& [name, checksum] : description.items()) {
    if (!checksum.is_number_unsigned()) return std::nullopt;
    manifest.description[name] = checksum.template get<uint32_t>();
  }
  for (const auto& [name, value] : j["files"].items()) {
    const auto file = parse_file(value);
    if (!file || name != fs::path(name).filename()) return std::nullopt;
    manifest.files[name] = *file;
  }
  return manifest;
}

// Of all of a manifest but the checksum itself: keys sort, and numbers are written in one way only.
uint32_t checksum_of(json manifest) {
  manifest.erase(kChecksum);
  const std::string text = manifest.dump();
  return crc32(std::as_bytes(std::span(text)));
}

void check_description(const fs::path& checkpoint, const CheckpointManifest& manifest) {
  if (manifest.description.empty()) return;  // written by an older version
  const auto found = description_checksums(checkpoint);
  for (const auto& [name, expected] : manifest.description) {
    const fs::path path = checkpoint / kModelDescription / name;
    const auto file = found.find(name);
    if (file == found.end()) throw error(Code::kDataLoss, "{}: it is gone, and in the manifest", path.string());
    if (file->second != expected) throw error(Code::kDataLoss, "{} is damaged: checksum {:08x}, expected {:08x}", path.string(), file->second, expected);
  }
}

uint64_t total_bytes(const CheckpointManifest& manifest) {
  uint64_t bytes = 0;
  for (const auto& [name, file] : manifest.files) bytes += file.bytes;
  return bytes;
}

// Every tensor of every file, its bytes checked. `take(file, entry, bytes)`.
template <typename Take>
void for_each_tensor(const fs::path& checkpoint, const CheckpointManifest& manifest, const std::function<void(double)>& progress, Take take) {
  uint64_t done = 0;
  for (const auto& [name, file] : manifest.files) {
    const MappedFile map = MappedFile::open(checkpoint / name).value();
    const SafetensorsHeader header = parse_safetensors_header(map.bytes(), (checkpoint / name).string());
    size_t known = 0;
    for (const TensorEntry& entry : header.tensors) {
      const auto bytes = map.bytes().subspan(entry.begin, entry.end - entry.begin);
      if (const auto checksum = file.tensors.find(entry.name); checksum != file.tensors.end()) {
        ++known;
        const uint32_t found = crc32(bytes);
        if (found != checksum->second) {
          throw error(Code::kDataLoss, "{}: tensor '{}' is damaged: checksum {:08x}, expected {:08x}; restore the file or continue from an earlier checkpoint",
                      (checkpoint / name).string(), entry.name, found, checksum->second);
        }
      }
      take(name, entry, bytes);
      done += bytes.size();
      if (progress) progress(static_cast<double>(done) / static_cast<double>(std::max<uint64_t>(1, total_bytes(manifest))));
    }
    if (known != file.tensors.size()) throw error(Code::kDataLoss, "{}: it holds {} of the {} tensors in the manifest", (checkpoint / name).string(), known, file.tensors.size());
  }
}

// A new folder that has its name when `write` is done; of one that fails nothing is left, as it may have filled the disk.
void write_whole_folder(const fs::path& output, const std::function<void(const fs::path& unfinished)>& write) {
  const fs::path unfinished = unfinished_path(output);
  try {
    fs::remove_all(unfinished);
    fs::create_directories(unfinished);
    write(unfinished);
    fs::rename(unfinished, output);
  } catch (const std::exception& e) {
    std::error_code ignored;
    fs::remove_all(unfinished, ignored);
    if (const auto* failure = dynamic_cast<const fs::filesystem_error*>(&e)) throw error_of(*failure);
    throw;
  }
}

// Of the weights, as the model's description says: training itself keeps float32.
std::string exported_dtype(const fs::path& config) {
  const json object = json::parse(read_file(config, kMaxManifestBytes).value(), nullptr, false);
  const char* key = object.is_object() && object.contains("dtype") ? "dtype" : "torch_dtype";
  const json name = object.is_object() ? object.value(key, json()) : json();
  if (name == "float32") return "F32";
  if (name == "bfloat16") return "BF16";
  if (name == "float16") return "F16";
  throw error(Code::kDataLoss, "{}: {}: expected float32, bfloat16 or float16, found {}", config.string(), key, name.dump());
}

// What only training needs.
bool is_beside_weights(const std::string& name, const std::set<std::string>& all) {
  if (name.starts_with(kBucketOrder)) return true;
  const size_t mark = name.find(kRoundingMark);
  if (mark != std::string::npos) return all.contains(name.substr(0, mark));
  return (name.ends_with(".m") || name.ends_with(".v")) && all.contains(name.substr(0, name.size() - 2));
}

}  // namespace

fs::path checkpoint_path(const fs::path& folder, int64_t step) { return folder / fmt::format("{}{:08d}", kPrefix, step); }

fs::path unfinished_path(const fs::path& checkpoint) {
  fs::path unfinished = checkpoint;
  return unfinished += kUnfinished;
}

std::string to_json(const CheckpointManifest& manifest) {
  json j;
  j["format"] = kVersion;
  j["step"] = manifest.step;
  j["elapsed_seconds"] = manifest.elapsed_seconds;
  j["tokens"] = manifest.tokens;
  j["skipped_steps"] = manifest.skipped_steps;
  j["skipped_in_a_row"] = manifest.skipped_in_a_row;
  if (manifest.loss_scale > 0 || manifest.overflowed_steps > 0) {
    j["loss_scale"] = manifest.loss_scale;
    j["loss_scale_good_steps"] = manifest.loss_scale_good_steps;
    j["overflowed_steps"] = manifest.overflowed_steps;
  }
  j["recent_losses"] = manifest.recent_losses;
  if (manifest.validation_loss) j["validation_loss"] = *manifest.validation_loss;
  j["config"] = manifest.config;
  if (!manifest.description.empty()) j["description"] = manifest.description;
  for (const auto& [name, file] : manifest.files) j["files"][name] = {{"bytes", file.bytes}, {"crc32", file.tensors}};
  j[kChecksum] = checksum_of(j);
  return j.dump(2);
}

Result<CheckpointManifest> read_manifest(const fs::path& checkpoint) {
  const fs::path path = checkpoint / kManifest;
  auto text = read_file(path, kMaxManifestBytes);
  if (!text) return text.error();
  const json j = json::parse(*text, nullptr, false);
  if (!j.is_object() || !j.contains("format") || !is_count(j["format"])) return error(Code::kDataLoss, "{}: not a checkpoint manifest", path.string());
  if (j["format"] > kVersion) return error(Code::kDataLoss, "{}: format {}, this version reads up to {}", path.string(), j["format"].dump(), kVersion);
  if (j["format"] > 2 && j.value(kChecksum, json()) != checksum_of(j)) {
    return error(Code::kDataLoss, "{}: its checksum is not that of its text, which was changed after it was written", path.string());
  }
  const auto manifest = parse(j);
  if (!manifest) return error(Code::kDataLoss, "{}: not a checkpoint manifest", path.string());
  for (const auto& [name, file] : manifest->files) {
    std::error_code absent;
    const auto found = fs::file_size(checkpoint / name, absent);
    if (absent || file.bytes != found) return error(Code::kDataLoss, "{}: expected {} bytes, found {}", (checkpoint / name).string(), file.bytes, absent ? 0 : found);
  }
  return *manifest;
}

std::vector<fs::path> finished_checkpoints(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory() && name.starts_with(kPrefix) && !name.ends_with(kUnfinished)) found.push_back(entry.path());
  }
  std::ranges::sort(found);  // steps are written with leading zeros
  return found;
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder) {
  auto all = finished_checkpoints(folder);
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    auto manifest = read_manifest(*it);
    if (manifest) return *it;
    spdlog::warn("skipping an incomplete checkpoint: {}", manifest.error().message());
  }
  return std::nullopt;
}

void remove_old_checkpoints(const fs::path& folder, int keep, int keep_best) {
  const auto all = finished_checkpoints(folder);
  std::vector<fs::path> complete;
  std::vector<std::pair<double, fs::path>> by_loss;
  for (const fs::path& checkpoint : all) {
    auto manifest = read_manifest(checkpoint);
    if (!manifest) continue;
    complete.push_back(checkpoint);
    if (manifest->validation_loss) by_loss.emplace_back(*manifest->validation_loss, checkpoint);
  }
  if (complete.empty()) return;
  std::set<fs::path> stay(complete.end() - std::min<std::ptrdiff_t>(keep, std::ssize(complete)), complete.end());
  std::ranges::sort(by_loss);
  for (size_t i = 0; i < by_loss.size() && i < static_cast<size_t>(keep_best); ++i) stay.insert(by_loss[i].second);
  for (const fs::path& checkpoint : all) {
    if (!stay.contains(checkpoint) && checkpoint < complete.back()) fs::remove_all(checkpoint);
  }
  remove_unfinished(folder);
}

void remove_unfinished(const fs::path& folder) {
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory() && name.starts_with(kPrefix) && name.ends_with(kUnfinished)) fs::remove_all(entry.path());
  }
}

std::map<std::string, uint32_t> description_checksums(const fs::path& checkpoint) {
  std::map<std::string, uint32_t> checksums;
  std::error_code failed;  // a folder that is gone has no files
  for (const auto& entry : fs::directory_iterator(checkpoint / kModelDescription, failed)) {
    checksums[entry.path().filename()] = crc32(MappedFile::open(entry.path()).value().bytes());
  }
  return checksums;
}

void verify_checkpoint(const fs::path& checkpoint, const std::function<void(double)>& progress) {
  const CheckpointManifest manifest = read_manifest(checkpoint).value();
  check_description(checkpoint, manifest);
  for_each_tensor(checkpoint, manifest, progress, [](const std::string&, const TensorEntry&, std::span<const std::byte>) {});
}

void export_checkpoint(const fs::path& checkpoint, const fs::path& output, const std::function<void(double)>& progress, uint64_t max_shard_bytes) {
  const CheckpointManifest manifest = read_manifest(checkpoint).value();
  if (fs::exists(output)) throw error(Code::kAlreadyExists, "{} exists; expected a new directory", output.string());
  if (!fs::exists(checkpoint / kModelDescription / "config.json")) {
    throw error(Code::kFailedPrecondition, "{}: it has no {}/config.json; was it written by an older version? Continue the run once with --resume", checkpoint.string(), kModelDescription);
  }
  check_description(checkpoint, manifest);
  // Headers first: which tensors are weights, and how large the file gets. A tied weight is in several files, and equal in all.
  std::map<std::string, std::pair<std::string, TensorEntry>> by_name;  // with the file that gives it
  std::set<std::string> names;
  for (const auto& [file, unused] : manifest.files) {
    const MappedFile map = MappedFile::open(checkpoint / file).value();
    for (const TensorEntry& entry : parse_safetensors_header(map.bytes(), (checkpoint / file).string()).tensors) {
      by_name.emplace(entry.name, std::pair(file, entry));
      names.insert(entry.name);
    }
  }
  std::vector<TensorEntry> entries;
  const auto wanted = [&](const std::string& file, const TensorEntry& entry) { return by_name.at(entry.name).first == file && !is_beside_weights(entry.name, names); };
  for (const auto& [file, unused] : manifest.files) {
    const MappedFile map = MappedFile::open(checkpoint / file).value();
    for (const TensorEntry& entry : parse_safetensors_header(map.bytes(), file).tensors) {
      if (wanted(file, entry)) entries.push_back(entry);
    }
  }
  const std::string dtype = exported_dtype(checkpoint / kModelDescription / "config.json");
  for (TensorEntry& entry : entries) entry.dtype = dtype;
  write_whole_folder(output, [&](const fs::path& unfinished) {
    WeightStream weights(unfinished, entries, max_shard_bytes);
    for_each_tensor(checkpoint, manifest, progress, [&](const std::string& file, const TensorEntry& entry, std::span<const std::byte> bytes) {
      if (!wanted(file, entry)) return;
      if (dtype == "F32") return weights.add(bytes);
      weights.add(narrowed(bytes, dtype));
    });
    weights.finish();
    for (const auto& entry : fs::directory_iterator(checkpoint / kModelDescription)) fs::copy_file(entry.path(), unfinished / entry.path().filename());
  });
}

}  // namespace penstock::formats
