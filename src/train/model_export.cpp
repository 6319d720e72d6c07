#include "train/model_export.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "model/parameter_io.h"
#include "text/tokenizer.h"
#include "weights/hf_writer.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

// A tied head is the embedding again: the first stage writes it.
bool written_elsewhere(const std::string& name, int stage) { return stage > 0 && name == "model.embed_tokens.weight"; }

std::string generation_config(const model::LlamaConfig& config) {
  nlohmann::ordered_json out;
  out["eos_token_id"] = config.eos_token_id;
  out["pad_token_id"] = config.eos_token_id;
  out["do_sample"] = true;
  out["temperature"] = 0.8;
  out["top_p"] = 0.95;
  return out.dump(2) + "\n";
}

}  // namespace

void export_model(comm::Communicator& world, const fs::path& folder, const model::LlamaConfig& config,
                  const std::vector<model::Parameter>& parameters, int stage, int num_stages, bool writes, Deadline deadline) {
  fs::path unfinished = folder;
  unfinished += ".writing";
  if (world.rank() == 0) {
    fs::remove_all(unfinished);
    fs::create_directories(unfinished);
  }
  world.barrier()->wait(deadline);
  if (writes) {
    std::vector<weights::NamedTensor> tensors;
    for (const model::Parameter& p : parameters) {
      for (auto& [name, part] : model::stored_parts(p, p.value)) {
        if (!written_elsewhere(name, stage)) tensors.emplace_back(name, part);
      }
    }
    weights::write_shard(unfinished, stage, num_stages, tensors);
  }
  world.barrier()->wait(deadline);
  if (world.rank() == 0) {
    weights::write_index(unfinished, num_stages);
    write_file_atomic(unfinished / "config.json", model::to_config_json(config));
    write_file_atomic(unfinished / "generation_config.json", generation_config(config));
    text::write_tokenizer_files(unfinished);
    fs::remove_all(folder);
    fs::rename(unfinished, folder);
    sync_path(folder.parent_path());
  }
  world.barrier()->wait(deadline);
}

}  // namespace penstock::train
