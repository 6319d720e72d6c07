#include "engine/pipeline_engine.h"

#include <algorithm>
#include <random>

#include "base/log.h"
#include "engine/stage_loop.h"

namespace penstock::engine {
namespace {

SchedulerLimits scheduler_limits(const PipelineEngineOptions& options, const StageRunner& runner, int num_stages) {
  return {options.max_sequences, options.max_waiting, options.max_step_rows, runner.max_sequence_tokens(), num_stages};
}

uint64_t fresh_seed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

}  // namespace

PipelineEngine::PipelineEngine(StageRunner& runner, comm::Communicator& stages, text::Tokenizer tokenizer, const PipelineEngineOptions& options)
    : runner_(runner),
      stages_(stages),
      tokenizer_(std::move(tokenizer)),
      options_(options),
      messages_(static_cast<size_t>(2 * (options.max_waiting + options.max_sequences))),
      scheduler_(scheduler_limits(options, runner, stages.size())),
      link_(stages, options.max_sequences, options.timeout),
      thread_([this] { loop(); }) {}

PipelineEngine::~PipelineEngine() {
  draining_ = true;
  messages_.close();
  thread_.join();
}

EngineInfo PipelineEngine::info() const {
  return {runner_.config().architecture, runner_.max_sequence_tokens(), options_.max_sequences, stages_.size()};
}

Result<SequenceInput> PipelineEngine::prepare(const text::GenerationRequest& request) const {
  SequenceInput input;
  try {
    if (!request.prompt_ids.empty()) input.prompt = request.prompt_ids;
    else input.prompt = tokenizer_.encode(request.prompt, {.add_special_tokens = !request.is_chat, .parse_special_tokens = request.is_chat});
  } catch (const Error& e) {
    return error(e.code(), "prompt: {}", e.message());
  }
  const auto out = std::find_if(input.prompt.begin(), input.prompt.end(), [&](int32_t id) { return id < 0 || id >= runner_.config().vocab_size; });
  if (out != input.prompt.end()) return error(Code::kInvalidArgument, "prompt: expected token ids from 0 to {}, found {}", runner_.config().vocab_size - 1, *out);
  const int limit = runner_.max_sequence_tokens();
  if (input.prompt.empty()) return error(Code::kInvalidArgument, "prompt: is empty; expected at least one token");
  if (static_cast<int>(input.prompt.size()) >= limit) {
    return error(Code::kInvalidArgument, "prompt: {} tokens; this model takes prompt and completion of at most {} together", input.prompt.size(), limit);
  }
  input.max_tokens = request.sampling.max_tokens;
  input.choice = {request.sampling.temperature, request.sampling.top_k, request.sampling.top_p, request.sampling.seed.value_or(fresh_seed()), 0};
  return input;
}

Result<RequestId> PipelineEngine::submit(const text::GenerationRequest& request, std::shared_ptr<EventSink> sink) {
  if (draining_) return error(Code::kUnavailable, "the model is being stopped");
  const RequestId id = next_id_++;
  auto input = prepare(request);
  if (!input) return input.error();
  if (queued_.fetch_add(1) >= options_.max_waiting + options_.max_sequences) {
    --queued_;
    return error(Code::kResourceExhausted, "the model's queue of {} requests is full; try again later", options_.max_waiting);
  }
  auto submission = std::make_unique<Submission>();
  submission->generation = std::make_unique<Generation>(tokenizer_, request, static_cast<int>(input->prompt.size()), std::move(sink));
  submission->input = std::move(*input);
  if (messages_.try_put({id, std::move(submission)}) != Put::kDone) {
    --queued_;
    return error(Code::kUnavailable, "the engine has stopped");
  }
  return id;
}

void PipelineEngine::cancel(RequestId id) {
  // The channel has room for every request that submit() lets in and one cancel of each.
  (void)messages_.try_put({id, nullptr});
}

void PipelineEngine::drain() { draining_ = true; }

std::optional<Error> PipelineEngine::wait_for_failure(Deadline deadline) {
  MutexLock lock(mutex_);
  while (!ended_) {
    if (!ended_changed_.wait(mutex_, deadline)) break;
  }
  return failure_;
}

void PipelineEngine::loop() {
  std::optional<Error> failure;
  try {
    run_until_closed();
    stop_other_stages();
  } catch (const Error& e) {
    failure = e;
  } catch (const std::exception& e) {
    failure = error(Code::kInternal, "{}", e.what());
  }
  draining_ = true;
  messages_.close();
  while (auto message = messages_.try_take()) handle(std::move(*message));
  fail_all(failure.value_or(error(Code::kUnavailable, "the model was stopped")));
  MutexLock lock(mutex_);
  ended_ = true;
  failure_ = failure;
  ended_changed_.notify_all();
}

void PipelineEngine::run_until_closed() {
  while (!messages_.closed()) {
    take_messages();
    while (static_cast<int>(in_flight_.size()) < stages_.size()) {
      auto step = scheduler_.next();
      if (!step) break;
      launch(std::move(*step));
    }
    if (!in_flight_.empty()) complete_oldest();
  }
}

// Waits when there is nothing to compute; otherwise takes what is there.
void PipelineEngine::take_messages() {
  const bool idle = in_flight_.empty() && scheduler_.idle();
  if (idle) {
    const auto wake = last_plan_ + kIdleInterval;
    if (auto message = messages_.take(Deadline::at(wake))) {
      handle(std::move(*message));
    } else if (Clock::now() >= wake && stages_.size() > 1) {
      link_.send_plan({StepKind::kIdle, {}});
      last_plan_ = Clock::now();
    } else if (Clock::now() >= wake) {
      last_plan_ = Clock::now();
    }
  }
  while (auto message = messages_.try_take()) handle(std::move(*message));
}

void PipelineEngine::handle(Message message) {
  if (!message.submission) {  // a cancel
    scheduler_.remove(message.id);
    if (generations_.erase(message.id) > 0) --queued_;
    return;
  }
  auto& [input, generation] = *message.submission;
  if (!scheduler_.add(message.id, std::move(input))) {
    generation->fail(error(Code::kResourceExhausted, "the model's queue of {} requests is full; try again later", options_.max_waiting));
    --queued_;
    return;
  }
  generations_[message.id] = std::move(generation);
}

void PipelineEngine::launch(BatchScheduler::Step step) {
  InFlight flight{std::move(step), Clock::now(), {}};
  const StepPlan& plan = flight.step.plan;
  const bool alone = stages_.size() == 1;
  last_plan_ = Clock::now();
  ++steps_;
  if (!alone) {
    link_.send_plan(plan);
    if (plan.samples() > 0) link_.expect_ids(plan.samples());
  }
  const std::vector<int64_t> ids(flight.step.tokens.begin(), flight.step.tokens.end());
  const at::Tensor out = runner_.forward(plan, at::tensor(ids, at::kLong));
  if (alone) {
    flight.local_ids = sample_rows(plan, out);
  } else {
    link_.send_hidden(out);
  }
  in_flight_.push_back(std::move(flight));
}

void PipelineEngine::complete_oldest() {
  InFlight flight = std::move(in_flight_.front());
  in_flight_.pop_front();
  if (stages_.size() > 1 && flight.step.plan.samples() > 0) flight.local_ids = link_.wait_ids();
  const double step_ms = 1e3 * to_seconds(Clock::now() - flight.start);
  for (const auto& sampled : scheduler_.complete(flight.step, flight.local_ids)) {
    const auto generation = generations_.find(sampled.id);
    if (generation == generations_.end()) continue;
    if (generation->second->accept(sampled.token, sampled.at_limit, step_ms)) continue;
    scheduler_.remove(sampled.id);
    generations_.erase(generation);
    --queued_;
  }
}

void PipelineEngine::stop_other_stages() {
  while (!in_flight_.empty()) complete_oldest();
  if (stages_.size() == 1) return;
  link_.send_plan({StepKind::kStop, {}});
  link_.flush();
}

void PipelineEngine::fail_all(const Error& error) {
  for (auto& [id, generation] : generations_) generation->fail(error);
  queued_ -= static_cast<int>(generations_.size());
  generations_.clear();
}

}  // namespace penstock::engine
