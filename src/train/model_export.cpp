#include "train/model_export.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "model/parameter_io.h"
#include "text/tokenizer.h"
#include "weights/hf_writer.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

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

void write_model_description(const fs::path& folder, const model::LlamaConfig& config) {
  write_file_atomic(folder / "config.json", model::to_config_json(config));
  write_file_atomic(folder / "generation_config.json", generation_config(config));
  text::write_tokenizer_files(folder);
}

void export_model(comm::Communicator& world, const fs::path& folder, const model::LlamaConfig& config,
                  PipelineTrainer& trainer) {
  const Deadline deadline = trainer.deadline();
  fs::path unfinished = folder;
  unfinished += ".writing";
  if (world.rank() == 0) {
    fs::remove_all(unfinished);
    fs::create_directories(unfinished);
  }
  world.barrier()->wait(deadline);
  if (trainer.replica() == 0) {
    std::vector<weights::NamedTensor> tensors;
    for (const model::Parameter& p : trainer.parameters()) {
      if (!trainer.owns(p.name)) continue;
      for (auto& [name, part] : model::stored_parts(p, p.value)) tensors.emplace_back(name, part);
    }
    weights::write_shard(unfinished, trainer.pipe_rank(), trainer.mesh().pipe, tensors);
  }
  world.barrier()->wait(deadline);
  if (world.rank() == 0) {
    weights::write_index(unfinished, trainer.mesh().pipe);
    write_model_description(unfinished, config);
    fs::remove_all(folder);
    fs::rename(unfinished, folder);
    sync_path(folder.parent_path());
  }
  world.barrier()->wait(deadline);
}

}  // namespace penstock::train
