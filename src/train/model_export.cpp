#include "train/model_export.h"

#include "base/flight_recorder.h"
#include "base/replace_folder.h"
#include "comm/recorded_communicator.h"
#include "formats/weight_stream.h"
#include "model/parameter_io.h"
#include "train/whole_over_ranks.h"
#include "weights/hf_writer.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

// What this rank writes, in the order of its layers. Collective over the replicas, who may each have a part of a value, and over the ranks that share layers.
std::vector<weights::NamedTensor> own_tensors(PipelineTrainer& trainer, comm::Communicator* tensor, at::ScalarType dtype) {
  std::vector<weights::NamedTensor> tensors;
  for (size_t i = 0; i < trainer.parameters().size(); ++i) {
    const model::Parameter& p = trainer.parameters()[i];
    const at::Tensor value = trainer.shards().whole_value(i, trainer.deadline());
    if (trainer.replica() != 0 || !trainer.owns(p.name)) continue;
    const model::Parameter whole = whole_over_ranks(p, value, tensor, trainer.deadline());
    if (trainer.tensor_rank() != 0) continue;
    for (auto& [name, part] : model::stored_parts(whole, whole.value)) tensors.emplace_back(name, part.to(dtype).to(at::kCPU));
  }
  return tensors;
}

struct ShardNumbers {
  int first = 0;  // of this rank
  int all = 0;
};

// Shards are numbered by pipe rank.
ShardNumbers number_shards(comm::Communicator& world, PipelineTrainer& trainer, size_t own) {
  at::Tensor counts = at::zeros({trainer.mesh().pipe}, at::kLong);
  int64_t* count = counts.data_ptr<int64_t>();
  count[trainer.pipe_rank()] = static_cast<int64_t>(own);
  world.all_reduce(counts, comm::Reduce::kSum)->wait(trainer.deadline());
  ShardNumbers numbers;
  for (int rank = 0; rank < trainer.mesh().pipe; ++rank) {
    if (rank < trainer.pipe_rank()) numbers.first += static_cast<int>(count[rank]);
    numbers.all += static_cast<int>(count[rank]);
  }
  return numbers;
}

}  // namespace

void export_model(comm::Communicator& world, comm::Communicator* tensor, const fs::path& folder, const RunModel& model, PipelineTrainer& trainer) {
  const FlightScope scope(comm::recorder_of(world), {.name = "export"});
  fs::path unfinished = folder;
  unfinished += ".writing";
  if (world.rank() == 0) {
    fs::remove_all(unfinished);
    fs::create_directories(unfinished);
  }
  const std::vector<weights::NamedTensor> tensors = own_tensors(trainer, tensor, model.dtype);
  const auto shards = tensors.empty() ? std::vector<std::vector<weights::NamedTensor>>() : weights::cut_into_shards(tensors, formats::kMaxShardBytes);
  const ShardNumbers numbers = number_shards(world, trainer, shards.size());  // no rank returns before the folder is there
  for (size_t i = 0; i < shards.size(); ++i) weights::write_shard(unfinished, numbers.first + static_cast<int>(i), numbers.all, shards[i]);
  world.barrier()->wait(trainer.deadline());
  if (world.rank() == 0) {
    weights::finish_shards(unfinished, numbers.all, formats::kMaxShardBytes);
    model.description.write(unfinished);
    replace_folder(unfinished, folder);
  }
  world.barrier()->wait(trainer.deadline());
}

}  // namespace penstock::train
