#include "train/checkpoint.h"

#include <map>

#include "base/crc32.h"
#include "base/error.h"
#include "model/parameter_io.h"
#include "train/rounding_errors.h"
#include "weights/safetensors.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

void check(const fs::path& path, const formats::CheckpointManifest::File& file, const std::string& name, const at::Tensor& tensor) {
  const auto expected = file.tensors.find(name);
  if (expected == file.tensors.end()) return;  // written by version 1
  const at::Tensor bytes = tensor.contiguous();
  const uint32_t found = crc32({static_cast<const std::byte*>(bytes.data_ptr()), bytes.nbytes()});
  if (found == expected->second) return;
  throw error(Code::kDataLoss, "{}: tensor '{}' is damaged: checksum {:08x}, expected {:08x}", path.string(), name, found, expected->second);
}

}  // namespace

void read_checkpoint(const fs::path& checkpoint, TrainState& state) {
  const formats::CheckpointManifest manifest = formats::read_manifest(checkpoint).value();
  std::vector<weights::SafetensorsFile> files;
  std::map<std::string, size_t> file_of;
  std::vector<const std::pair<const std::string, formats::CheckpointManifest::File>*> listed;
  for (const auto& entry : manifest.files) {
    files.push_back(weights::SafetensorsFile::open(checkpoint / entry.first));
    listed.push_back(&entry);
    for (const std::string& tensor : files.back().names()) file_of[tensor] = files.size() - 1;
  }
  const auto lookup_with = [&](const char* suffix) {
    return [&, suffix](const std::string& name) {
      const auto found = file_of.find(name + suffix);
      if (found == file_of.end()) throw error(Code::kDataLoss, "{}: no tensor '{}{}'; is it of another model?", checkpoint.string(), name, suffix);
      const at::Tensor tensor = files[found->second].tensor(name + suffix);
      check(checkpoint / listed[found->second]->first, listed[found->second]->second, name + suffix, tensor);
      return tensor;
    };
  };
  std::vector<std::string> names;
  for (const auto& [name, unused] : file_of) names.push_back(name);
  if (state.trainer != nullptr) restore_bucket_order(*state.trainer, names, lookup_with(""));
  for (size_t i = 0; i < state.parameters->size(); ++i) {
    model::Parameter& p = (*state.parameters)[i];
    at::Tensor value = at::empty(p.value.sizes(), at::kFloat);
    model::load_parameter(p, value, lookup_with(""));
    state.shards->set_value(i, value);
    std::vector<at::Tensor> moments;
    for (const char* name : state.optimizer->moment_names()) model::load_parameter(p, moments.emplace_back(at::empty_like(value)), lookup_with(name));
    state.optimizer->set_moments(i, moments);
  }
  if (state.trainer != nullptr) restore_rounding_errors(*state.trainer, names, lookup_with(""));
  state.position = {manifest.step, manifest.elapsed_seconds, manifest.tokens};
  state.guard = {manifest.recent_losses, manifest.skipped_steps, manifest.skipped_in_a_row};
  if (state.trainer != nullptr) state.trainer->set_updates(manifest.step - manifest.skipped_steps - manifest.overflowed_steps);
  state.scaler = {manifest.loss_scale, manifest.loss_scale_good_steps, manifest.overflowed_steps};
}

}  // namespace penstock::train
