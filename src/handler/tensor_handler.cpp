#include "handler/tensor_handler.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"

namespace penstock::handler {
namespace {

constexpr int kOutOfResources = 507;

// What must be equal for requests to run together; "" for one that has to run alone, because an input has no rows.
std::string batch_key(const std::vector<Tensor>& inputs) {
  std::string key;
  for (const Tensor& input : inputs) {
    if (input.shape.empty() || input.shape[0] != inputs[0].shape[0]) return "";
    const std::vector<int64_t> row(input.shape.begin() + 1, input.shape.end());
    key += fmt::format("{} {} {}\n", input.name, to_string(input.type), shown_shape(row));
  }
  return key;
}

// Rows of all requests, one after the other. REQUIRES: the same key, not empty.
std::vector<Tensor> joined(const std::vector<const TensorRequest*>& requests) {
  std::vector<Tensor> inputs = requests[0]->inputs;
  for (size_t r = 1; r < requests.size(); ++r) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      inputs[i].shape[0] += requests[r]->inputs[i].shape[0];
      inputs[i].data += requests[r]->inputs[i].data;
    }
  }
  return inputs;
}

bool can_be_cut(const Tensor& output, int64_t rows) { return !output.shape.empty() && output.shape[0] == rows && output.type != DataType::kBytes; }

// `count` rows from `first` on. REQUIRES: can_be_cut().
Tensor cut(const Tensor& output, int64_t first, int64_t count) {
  Tensor part{output.name, output.type, output.shape, ""};
  part.shape[0] = count;
  const size_t row_bytes = output.shape[0] == 0 ? 0 : output.data.size() / static_cast<size_t>(output.shape[0]);
  part.data = output.data.substr(static_cast<size_t>(first) * row_bytes, static_cast<size_t>(count) * row_bytes);
  return part;
}

// Puts the inputs into the order of the model's names, if each has one of them. kInvalidArgument: some have not, and came without an order.
std::optional<Error> put_in_order(TensorRequest& request, const std::vector<std::string>& names) {
  std::vector<Tensor> inputs;
  for (const std::string& name : names) {
    const auto found = std::find_if(request.inputs.begin(), request.inputs.end(), [&](const Tensor& input) { return input.name == name; });
    if (found != request.inputs.end()) inputs.push_back(*found);
  }
  if (inputs.size() == request.inputs.size()) {
    request.inputs = std::move(inputs);
    return std::nullopt;
  }
  if (request.ordered || request.inputs.size() == 1) return std::nullopt;
  return error(Code::kInvalidArgument, "inputs: expected names out of [{}], or a list of \"inputs\"", fmt::join(names, ", "));
}

// As TorchServe answers where memory is short.
AnswerEvent out_of_resources(const Error& failure) {
  const nlohmann::ordered_json json = {{"code", kOutOfResources}, {"type", "InternalServerException"}, {"message", "Out of resources: " + failure.message()}};
  const std::string text = json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return {AnswerHead{kOutOfResources, "application/json", {}}, text + "\n", true, {}};
}

}  // namespace

TensorHandler::TensorHandler(TensorModel& model, TensorHandlerOptions options)
    : model_(model), options_(std::move(options)), batcher_(options_.batch_size, options_.max_batch_delay), thread_([this] { loop(); }) {}

TensorHandler::~TensorHandler() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

// One batch runs while the next one gathers.
HandlerInfo TensorHandler::info() const { return {options_.name, static_cast<int>(2 * options_.batch_size)}; }

Result<RequestId> TensorHandler::submit(Request request, std::shared_ptr<AnswerSink> sink) {
  auto parsed = parse_tensor_request(request, options_.raw);
  if (!parsed) return parsed.error();
  if (auto bad = put_in_order(*parsed, model_.input_names())) return *bad;
  MutexLock lock(mutex_);
  if (draining_ || stopping_) return Error(Code::kUnavailable, "the model is stopping");
  const RequestId id = next_id_++;
  std::string key = batch_key(parsed->inputs);
  if (key.empty()) key = fmt::format("alone {}", id);
  batcher_.add(id, std::move(key), Clock::now());
  waiting_.emplace(id, Waiting{std::move(*parsed), std::move(sink)});
  changed_.notify_all();
  return id;
}

void TensorHandler::cancel(RequestId id) {
  std::optional<Waiting> dropped;  // destroyed without the lock
  MutexLock lock(mutex_);
  const auto found = waiting_.find(id);
  if (found == waiting_.end()) return;
  batcher_.remove(id);
  dropped = std::move(found->second);
  waiting_.erase(found);
}

void TensorHandler::drain() {
  MutexLock lock(mutex_);
  draining_ = true;
}

void TensorHandler::loop() {
  for (;;) {
    auto batch = next_batch();
    if (batch.empty()) return;
    run_batch(std::move(batch));
  }
}

// Waits for a batch that is due; empty: the handler is being destroyed.
std::vector<TensorHandler::Waiting> TensorHandler::next_batch() {
  MutexLock lock(mutex_);
  std::vector<Waiting> batch;
  while (!stopping_ && batch.empty()) {
    for (const RequestId id : batcher_.take(Clock::now())) batch.push_back(std::move(waiting_.extract(id).mapped()));
    if (!batch.empty()) break;
    const auto due = batcher_.next_due();
    (void)changed_.wait(mutex_, due ? Deadline::at(*due) : Deadline::never());
  }
  return batch;
}

void TensorHandler::run_batch(std::vector<Waiting> batch) {
  if (batch.size() > 1 && !cannot_batch_ && run_together(batch)) return;
  for (const Waiting& waiting : batch) answer(waiting, model_.run(waiting.request.inputs));
}

// false: nobody was answered, each has to run alone.
bool TensorHandler::run_together(std::vector<Waiting>& batch) {
  std::vector<const TensorRequest*> requests;
  for (const Waiting& waiting : batch) requests.push_back(&waiting.request);
  const std::vector<Tensor> inputs = joined(requests);
  const int64_t rows = inputs[0].shape[0];
  auto outputs = model_.run(inputs);
  if (!outputs) return false;  // one of them may be the reason: alone, each gets its own error
  for (const Tensor& output : *outputs) {
    if (can_be_cut(output, rows)) continue;
    spdlog::warn("model '{}': its output of shape {} cannot be split among {} requests with {} rows together; requests run alone from now on",
                 options_.model, shown_shape(output.shape), batch.size(), rows);
    cannot_batch_ = true;
    return false;
  }
  int64_t first = 0;
  for (const Waiting& waiting : batch) {
    const int64_t count = waiting.request.inputs[0].shape[0];
    std::vector<Tensor> parts;
    for (const Tensor& output : *outputs) parts.push_back(cut(output, first, count));
    answer(waiting, parts);
    first += count;
  }
  return true;
}

void TensorHandler::answer(const Waiting& waiting, const Result<std::vector<Tensor>>& outputs) const {
  if (outputs) {
    auto event = make_tensor_answer(waiting.request, options_.model, outputs.value());
    if (event) {
      (void)waiting.sink->push(std::move(*event));
      return;
    }
    (void)waiting.sink->push({std::nullopt, "", true, event.error()});
    return;
  }
  const Error& failure = outputs.error();
  if (failure.code() == Code::kResourceExhausted) (void)waiting.sink->push(out_of_resources(failure));
  else (void)waiting.sink->push({std::nullopt, "", true, failure});
}

}  // namespace penstock::handler
