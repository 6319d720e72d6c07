#include "train/layer_shards.h"

#include <c10/core/StorageImpl.h>

#include <algorithm>

#include "base/error.h"

namespace penstock::train {
namespace {

constexpr int64_t kAlignment = 16;       // elements of a replica's part, and of a parameter in a unit: a cache line
constexpr size_t kReductionsUnderWay = 2;  // at most, beside the one being filled

int64_t padded(int64_t elements, int64_t multiple) { return (elements + multiple - 1) / multiple * multiple; }

// The memory under a tensor, and under all its views, comes and goes; the tensors stay. Autograd's saved tensors see the new memory too, and no version
// counter moves: what they read is what they saved.
void take_memory(const at::Tensor& flat) {
  c10::StorageImpl* storage = flat.storage().unsafeGetStorageImpl();
  const at::Tensor memory = at::empty({flat.numel()}, at::TensorOptions(at::kFloat).device(flat.device()));
  storage->set_data_ptr_noswap(memory.storage().unsafeGetStorageImpl()->set_data_ptr(c10::DataPtr(nullptr, flat.device())));
  storage->set_nbytes(static_cast<size_t>(flat.numel()) * sizeof(float));
}

void give_memory_back(const at::Tensor& flat) {
  c10::StorageImpl* storage = flat.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(c10::DataPtr(nullptr, flat.device()));
  storage->set_nbytes(size_t{0});
}

}  // namespace

struct LayerShards::Unit {
  std::vector<size_t> parameters;
  int home_layer = 0;          // its gradients are complete when this layer's are
  int64_t size = 0, each = 0;  // elements; of one replica
  std::vector<int64_t> offsets;  // of every replica's part, and the size
  at::Tensor whole;            // [size]: the parameters' memory
  at::Tensor value, gradient;  // [each]: this replica's part; `value` is a view of `whole` unless values are sharded
  bool here = true;            // `whole` has memory
  comm::WorkPtr gather;        // under way
};

struct LayerShards::Reduction {
  size_t unit = 0;
  at::Tensor whole;
  comm::WorkPtr work;
  ReductionRecord record;
};

LayerShards::LayerShards(std::vector<model::Parameter>& parameters, const std::vector<Layer>& layers, comm::Communicator& replicas, bool shard_values,
                         const std::vector<size_t>& alone)
    : ParameterShards(parameters, &replicas), shard_values_(shard_values), places_(parameters.size()), has_gradient_(parameters.size()) {
  std::vector<bool> placed(parameters.size());
  for (const Layer& layer : layers) {
    std::vector<size_t> own;
    std::vector<size_t> used;
    for (const at::Tensor& value : layer.values) {
      const auto found = std::ranges::find_if(parameters, [&](const model::Parameter& p) { return p.value.is_same(value); });
      PENSTOCK_CHECK(found != parameters.end(), "layer {} has a parameter that is in no list", layer.index);
      used.push_back(static_cast<size_t>(found - parameters.begin()));
      const size_t i = used.back();
      if (placed[i] || std::ranges::find(own, i) != own.end()) continue;
      if (std::ranges::find(alone, i) == alone.end()) {
        own.push_back(i);
      } else {
        make_unit({i}, layer.index);
        placed[i] = true;
      }
    }
    if (!own.empty()) make_unit(own, layer.index);
    for (const size_t i : own) placed[i] = true;
    layer_units_.resize(std::max(layer_units_.size(), static_cast<size_t>(layer.index) + 1));
    auto& units = layer_units_[static_cast<size_t>(layer.index)];
    for (const size_t i : used) {
      if (std::ranges::find(units, places_[i].unit) == units.end()) units.push_back(places_[i].unit);
    }
  }
}

LayerShards::~LayerShards() = default;

void LayerShards::make_unit(const std::vector<size_t>& parameters, int layer) {
  auto unit = std::make_unique<Unit>();
  unit->parameters = parameters;
  unit->home_layer = layer;
  for (const size_t i : parameters) {
    places_[i] = {units_.size(), unit->size};
    unit->size += padded(parameters_[i].value.numel(), kAlignment);
  }
  unit->size = padded(unit->size, kAlignment * replicas_->size());
  unit->each = unit->size / replicas_->size();
  for (int replica = 0; replica <= replicas_->size(); ++replica) unit->offsets.push_back(replica * unit->each);
  move_values(*unit);
  units_.push_back(std::move(unit));
}

// Not their contents: initialize() or set_value() come later.
void LayerShards::move_values(Unit& unit) {
  unit.whole = at::empty({unit.size}, device_options());
  for (const size_t i : unit.parameters) {
    at::Tensor& value = parameters_[i].value;
    value.set_data(unit.whole.narrow(0, places_[i].offset, value.numel()).view(value.sizes()));
  }
  unit.gradient = at::zeros({unit.each}, device_options());
  if (!shard_values_) {
    unit.whole.zero_();
    unit.value = unit.whole.narrow(0, replicas_->rank() * unit.each, unit.each);
    return;
  }
  unit.value = at::zeros({unit.each}, device_options());
  give_memory_back(unit.whole);
  unit.here = false;
}

ParameterShards::Range LayerShards::range(size_t i, int replica) const {
  const int64_t each = units_[places_[i].unit]->each, offset = places_[i].offset, size = parameters_[i].value.numel();
  const int64_t begin = std::clamp(replica * each - offset, int64_t{0}, size), end = std::clamp((replica + 1) * each - offset, int64_t{0}, size);
  return {begin, end - begin};
}

at::Tensor LayerShards::values(size_t i) const {
  const Range r = own(i);
  if (r.count == 0) return at::empty({0}, device_options());
  const Unit& unit = *units_[places_[i].unit];
  return unit.value.narrow(0, places_[i].offset + r.begin - replicas_->rank() * unit.each, r.count);
}

at::Tensor LayerShards::gradients(size_t i) const {
  const Range r = own(i);
  if (r.count == 0) return at::empty({0}, device_options());
  const Unit& unit = *units_[places_[i].unit];
  return unit.gradient.narrow(0, places_[i].offset + r.begin - replicas_->rank() * unit.each, r.count);
}

// Unit by unit, so that the whole model is never here.
void LayerShards::initialize(const Initializer& set) {
  const at::NoGradGuard no_grad;
  for (auto& unit : units_) {
    if (!unit->here) take_memory(unit->whole);
    for (const size_t i : unit->parameters) set(parameters_[i]);
    if (unit->here) continue;
    for (const size_t i : unit->parameters) set_value(i, parameters_[i].value);
    give_memory_back(unit->whole);
  }
}

void LayerShards::set_value(size_t i, const at::Tensor& whole) {
  if (!shard_values_) return ParameterShards::set_value(i, whole);
  const at::NoGradGuard no_grad;
  const Range r = own(i);
  values(i).copy_(whole.detach().reshape({-1}).narrow(0, r.begin, r.count));
}

at::Tensor LayerShards::whole_value(size_t i, Deadline deadline) const {
  return shard_values_ ? whole(i, values(i), deadline) : ParameterShards::whole_value(i, deadline);
}

void LayerShards::share_updated(Deadline deadline) {
  if (shard_values_) return;  // the next use gathers
  std::vector<comm::WorkPtr> works;
  for (auto& unit : units_) works.push_back(replicas_->all_gather(unit->whole, unit->offsets));
  for (auto& work : works) work->wait(deadline);
}

void LayerShards::begin(const std::vector<plan::LayerUse>& uses, seconds timeout) {
  uses_ = &uses;
  next_ = 0;
  timeout_ = timeout;
  records_.clear();
  const bool trains = std::ranges::any_of(uses, &plan::LayerUse::completes);
  if (trains) {
    for (auto& unit : units_) unit->gradient.zero_();
    has_gradient_.assign(has_gradient_.size(), false);
  }
  if (const auto* first = next_reader(0)) {
    for (const size_t unit : units_of(*first)) start_gather(*units_[unit]);
  }
}

const plan::LayerUse& LayerShards::use(int first_layer, int last_layer) const {
  PENSTOCK_CHECK(uses_ != nullptr && next_ < uses_->size(), "layers {} to {} are used after the last planned use", first_layer, last_layer);
  const plan::LayerUse& use = (*uses_)[next_];
  PENSTOCK_CHECK(use.first_layer == first_layer && use.last_layer == last_layer, "layers {} to {} are used, planned were {} to {}", first_layer, last_layer,
                 use.first_layer, use.last_layer);
  return use;
}

const plan::LayerUse* LayerShards::next_reader(size_t from) const {
  while (from < uses_->size() && (*uses_)[from].kind == plan::LayerUse::Kind::kWeightGrads) ++from;
  return from < uses_->size() ? &(*uses_)[from] : nullptr;
}

std::vector<size_t> LayerShards::units_of(const plan::LayerUse& use) const {
  std::vector<size_t> units;
  for (int layer = use.first_layer; layer < use.last_layer; ++layer) {
    for (const size_t unit : layer_units_[static_cast<size_t>(layer)]) {
      if (std::ranges::find(units, unit) == units.end()) units.push_back(unit);
    }
  }
  return units;
}

void LayerShards::start_gather(Unit& unit) const {
  if (unit.here || unit.gather) return;
  take_memory(unit.whole);
  {
    const at::NoGradGuard no_grad;
    unit.whole.narrow(0, replicas_->rank() * unit.each, unit.each).copy_(unit.value);
  }
  unit.gather = replicas_->all_gather(unit.whole, unit.offsets);
}

void LayerShards::finish_gather(Unit& unit, Deadline deadline) const {
  if (unit.here) return;
  unit.gather->wait(deadline);
  unit.gather.reset();
  unit.here = true;
}

void LayerShards::before(int first_layer, int last_layer) {
  const std::vector<size_t> units = units_of(use(first_layer, last_layer));
  for (const size_t unit : units) start_gather(*units_[unit]);
  for (const size_t unit : units) finish_gather(*units_[unit], Deadline::after(timeout_));
  if (const auto* ahead = next_reader(next_ + 1)) {
    for (const size_t unit : units_of(*ahead)) start_gather(*units_[unit]);
  }
}

void LayerShards::after(int first_layer, int last_layer) {
  const plan::LayerUse& done = use(first_layer, last_layer);
  ++next_;
  if (shard_values_ && done.kind != plan::LayerUse::Kind::kWeightGrads) {
    const auto* ahead = next_reader(next_);
    const std::vector<size_t> still = ahead != nullptr ? units_of(*ahead) : std::vector<size_t>{};
    for (const size_t unit : units_of(done)) {
      if (std::ranges::find(still, unit) != still.end()) continue;
      give_memory_back(units_[unit]->whole);
      units_[unit]->here = false;
    }
  }
  if (!done.completes) return;
  for (size_t unit = units_.size(); unit-- > 0;) {
    if (units_[unit]->home_layer >= first_layer && units_[unit]->home_layer < last_layer) reduce(unit);
  }
}

void LayerShards::pass() {
  while (next_ < uses_->size()) {
    const plan::LayerUse& use = (*uses_)[next_];
    if (use.kind != plan::LayerUse::Kind::kWeightGrads) before(use.first_layer, use.last_layer);
    after(use.first_layer, use.last_layer);
  }
}

void LayerShards::reduce(size_t index) {
  const at::NoGradGuard no_grad;
  Unit& unit = *units_[index];
  while (reductions_.size() >= kReductionsUnderWay) finish_oldest_reduction();
  Reduction reduction;
  reduction.unit = index;
  reduction.whole = at::zeros({unit.size}, device_options());
  for (const size_t i : unit.parameters) {
    at::Tensor& gradient = parameters_[i].value.mutable_grad();
    if (!gradient.defined()) continue;
    has_gradient_[i] = true;
    reduction.whole.narrow(0, places_[i].offset, gradient.numel()).copy_(gradient.reshape({-1}));
    gradient.reset();
  }
  reduction.record = {static_cast<int>(index), static_cast<int64_t>(reduction.whole.nbytes()), now_us(), 0};
  reduction.work = replicas_->reduce_scatter(reduction.whole, unit.offsets);
  reductions_.push_back(std::move(reduction));
}

// By another layer that shares it, after the home layer's last backward.
bool LayerShards::is_added_to_late(size_t unit) const {
  for (auto use = uses_->rbegin(); use != uses_->rend(); ++use) {
    if (!use->completes) continue;
    const int home = units_[unit]->home_layer;
    if (home >= use->first_layer && home < use->last_layer) return false;
    if (std::ranges::count(units_of(*use), unit) > 0) return true;
  }
  return false;
}

void LayerShards::finish_oldest_reduction() {
  Reduction& oldest = reductions_.front();
  oldest.work->wait(Deadline::after(timeout_));
  oldest.record.end_us = now_us();
  Unit& unit = *units_[oldest.unit];
  unit.gradient.add_(oldest.whole.narrow(0, replicas_->rank() * unit.each, unit.each));
  records_.push_back(oldest.record);
  reductions_.erase(reductions_.begin());
}

std::vector<ReductionRecord> LayerShards::finish() {
  PENSTOCK_CHECK(next_ == uses_->size(), "{} of {} planned uses of layers came", next_, uses_->size());
  for (size_t unit = 0; unit < units_.size(); ++unit) {
    if (is_added_to_late(unit)) reduce(unit);
  }
  while (!reductions_.empty()) finish_oldest_reduction();
  uses_ = nullptr;
  return std::move(records_);
}

}  // namespace penstock::train
