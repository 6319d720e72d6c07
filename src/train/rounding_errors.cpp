#include "train/rounding_errors.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "base/error.h"
#include "formats/checkpoint_folder.h"
#include "train/whole_over_ranks.h"

namespace penstock::train {
namespace {

// Whose errors a tensor has.
struct Owner {
  int pipe_rank = 0, replica = 0;
};

std::string ending_of(const Owner& owner) { return fmt::format("{}{}-{}", formats::kRoundingMark, owner.pipe_rank, owner.replica); }

// "12-3"; nullopt: something else.
std::optional<Owner> parse_owner(std::string_view text) {
  Owner owner;
  const char* end = text.data() + text.size();
  const auto pipe = std::from_chars(text.data(), end, owner.pipe_rank);
  if (pipe.ec != std::errc() || pipe.ptr == end || *pipe.ptr != '-') return std::nullopt;
  const auto replica = std::from_chars(pipe.ptr + 1, end, owner.replica);
  if (replica.ec != std::errc() || replica.ptr != end || owner.pipe_rank < 0 || owner.replica < 0) return std::nullopt;
  return owner;
}

// By the stored name of a tensor.
std::map<std::string, std::vector<Owner>> owners_in(const std::vector<std::string>& names) {
  std::map<std::string, std::vector<Owner>> owners;
  for (const std::string& name : names) {
    const size_t mark = name.find(formats::kRoundingMark);
    if (mark == std::string::npos) continue;
    if (const auto owner = parse_owner(std::string_view(name).substr(mark + std::string_view(formats::kRoundingMark).size()))) owners[name.substr(0, mark)].push_back(*owner);
  }
  return owners;
}

std::string order_name(const PipelineTrainer& trainer) { return fmt::format("{}{}-of-{}", formats::kBucketOrder, trainer.pipe_rank(), trainer.mesh().pipe); }

bool rounds(PipelineTrainer& trainer) { return trainer.reducer() != nullptr && trainer.reducer()->rounds(); }

// What was remembered on a pipe rank that has the parameter now stays there; the rest goes to the first one that has it.
bool takes(const PipelineTrainer& trainer, const std::string& parameter, const Owner& owner) {
  if (owner.replica % trainer.mesh().data != trainer.replica()) return false;
  if (owner.pipe_rank == trainer.pipe_rank()) return true;
  const std::vector<int> holders = trainer.holders(parameter);
  return trainer.pipe_rank() == holders.front() && std::ranges::find(holders, owner.pipe_rank) == holders.end();
}

}  // namespace

std::vector<weights::NamedTensor> rounding_errors(PipelineTrainer& trainer, comm::Communicator* tensor, bool writes, Deadline deadline) {
  std::vector<weights::NamedTensor> tensors;
  if (!rounds(trainer)) return tensors;
  const std::string ending = ending_of({trainer.pipe_rank(), trainer.replica()});
  for (const model::Parameter& p : trainer.parameters()) {
    const model::Parameter whole = whole_over_ranks(p, trainer.reducer()->residual(p.value).view(p.value.sizes()), tensor, deadline);
    if (!writes) continue;
    for (auto& [name, part] : model::stored_parts(whole, host_copy(whole.value))) {
      if (at::any(part.ne(0)).item<bool>()) tensors.emplace_back(name + ending, part);  // most replicas remember but their share of the elements
    }
  }
  if (writes && trainer.replica() == 0) tensors.emplace_back(order_name(trainer), at::tensor(trainer.reducer()->orders(), at::kLong));
  return tensors;
}

void restore_bucket_order(PipelineTrainer& trainer, const std::vector<std::string>& names, const model::TensorLookup& lookup) {
  if (!rounds(trainer) || std::ranges::find(names, order_name(trainer)) == names.end()) return;
  const at::Tensor order = lookup(order_name(trainer)).contiguous();
  if (order.scalar_type() != at::kLong) throw error(Code::kDataLoss, "tensor '{}': expected int64, found {}", order_name(trainer), at::toString(order.scalar_type()));
  // Orders of other boundaries fit no stage of this rank: the first step finds new ones.
  trainer.change_places([&] { (void)trainer.reducer()->set_orders({order.data_ptr<int64_t>(), static_cast<size_t>(order.numel())}); });
}

void restore_rounding_errors(PipelineTrainer& trainer, const std::vector<std::string>& names, const model::TensorLookup& lookup) {
  if (!rounds(trainer)) return;
  const auto owners = owners_in(names);
  for (const model::Parameter& p : trainer.parameters()) {
    at::Tensor mine = trainer.reducer()->residual(p.value);
    mine.zero_();
    const auto found = owners.find(p.stored.front().name);
    if (found == owners.end()) continue;
    for (const Owner& owner : found->second) {
      if (!takes(trainer, p.name, owner)) continue;
      at::Tensor theirs = at::empty(p.value.sizes(), at::kFloat);
      model::load_parameter(p, theirs, [&](const std::string& name) { return lookup(name + ending_of(owner)); });
      mine.add_(theirs.view({-1}));
    }
  }
}

}  // namespace penstock::train
