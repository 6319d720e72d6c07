#pragma once
// What rounding has taken from gradients and the next step gives back (DataParallelReducer::round_to_bf16), in checkpoints.
#include <string>
#include <vector>

#include "model/parameter_io.h"
#include "train/pipeline_trainer.h"
#include "weights/safetensors.h"

namespace penstock::train {

// Into the same layout (stages, replicas, boundaries) a run resumes bit for bit: each rank gets back what it had, and the buckets their order, by which it is
// decided who remembers what rounding the sums takes. What is left in places of which this rank has no share any more is kept, and not given back. Into another layout, the sum over the ranks of what is remembered of each element is kept: replica r of n
// takes over what replicas r, r + n, ... had. A run that rounds nothing (reduce_dtype fp32, one replica, sharded gradients) leaves it out.

// What this rank remembers, as copies under the names of formats/checkpoint_folder.h, without tensors of zeros; none when it rounds nothing. Of ranks that share layers the one that
// `writes` gets all. Collective over `tensor`, which may be null.
[[nodiscard]] std::vector<weights::NamedTensor> rounding_errors(PipelineTrainer& trainer, comm::Communicator* tensor, bool writes, Deadline deadline);

// `names`: of all tensors of a checkpoint; `lookup` reads them. The first before weights and moments are read, as places may change: collective over the replicas.
void restore_bucket_order(PipelineTrainer& trainer, const std::vector<std::string>& names, const model::TensorLookup& lookup);
void restore_rounding_errors(PipelineTrainer& trainer, const std::vector<std::string>& names, const model::TensorLookup& lookup);

}  // namespace penstock::train
