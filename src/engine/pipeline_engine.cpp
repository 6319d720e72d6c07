#include "engine/pipeline_engine.h"

#include <algorithm>
#include <random>

#include "base/log.h"
#include "engine/stage_loop.h"
#include "text/grammar.h"

namespace penstock::engine {
namespace {

constexpr size_t kMostPromptLogprobs = 50'000;  // they travel in one message, of which clients take 4 MiB unless told otherwise: 80 bytes for each

constexpr size_t kMostGrammarBytes = 64 << 20;

SchedulerLimits scheduler_limits(const PipelineEngineOptions& options, StageRunner& runner, comm::Communicator& stages) {
  const int num_pages = make_caches(runner, &stages, options.timeout);
  return {options.max_sequences, options.max_waiting, options.max_step_rows, runner.max_sequence_tokens(), stages.size(), num_pages};
}

// The ids of a field are those of tokens. nullopt: they are.
std::optional<Error> check_ids(const char* field, const std::vector<int32_t>& ids, int64_t vocab_size) {
  const auto out = std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id < 0 || id >= vocab_size; });
  if (out == ids.end()) return std::nullopt;
  return error(Code::kInvalidArgument, "{}: expected token ids from 0 to {}, found {}", field, vocab_size - 1, *out);
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
      scheduler_(scheduler_limits(options, runner, stages)),
      chunks_(options.max_step_rows),
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

std::optional<EngineStats> PipelineEngine::stats() const {
  MutexLock lock(mutex_);
  return stats_;
}

// Where this stage chooses the tokens: other texts' steps then need not wait until it is made again. Null when those that are kept take too much.
std::shared_ptr<const text::Grammar> PipelineEngine::kept(text::Grammar grammar) const {
  const size_t bytes = grammar.bytes();
  if (stages_.size() > 1) return nullptr;
  if (grammar_bytes_->fetch_add(bytes) + bytes > kMostGrammarBytes) {
    *grammar_bytes_ -= bytes;
    return nullptr;
  }
  return {new text::Grammar(std::move(grammar)), [bytes, all = grammar_bytes_](const text::Grammar* done) {
            delete done;
            *all -= bytes;
          }};
}

Result<SequenceInput> PipelineEngine::prepare(const text::GenerationRequest& request) const {
  SequenceInput input;
  try {
    if (!request.prompt_ids.empty()) input.prompt = request.prompt_ids;
    else input.prompt = tokenizer_.encode(request.prompt, {.add_special_tokens = !request.is_chat, .parse_special_tokens = request.is_chat});
  } catch (const Error& e) {
    return error(e.code(), "prompt: {}", e.message());
  }
  if (auto bad = check_ids("prompt", input.prompt, runner_.config().vocab_size)) return *bad;
  const int limit = runner_.max_sequence_tokens();
  if (input.prompt.empty()) return error(Code::kInvalidArgument, "prompt: is empty; expected at least one token");
  if (static_cast<int>(input.prompt.size()) >= limit) {
    return error(Code::kInvalidArgument, "prompt: {} tokens; this model takes prompt and completion of at most {} together", input.prompt.size(), limit);
  }
  if (auto bad = check_ids("generated_ids", request.generated_ids, runner_.config().vocab_size)) return *bad;
  const text::SamplingParams& sampling = request.sampling;
  const size_t generated = request.generated_ids.size();
  if (generated >= static_cast<size_t>(sampling.max_tokens) || input.prompt.size() + generated >= static_cast<size_t>(limit)) {
    return error(Code::kInvalidArgument, "generated_ids: {} tokens leave no room for another", generated);
  }
  input.generated = request.generated_ids;
  std::vector<int32_t> biased;
  for (const auto& [id, bias] : sampling.logit_bias) biased.push_back(id);
  if (auto bad = check_ids("logit_bias", biased, runner_.config().vocab_size)) return *bad;
  if (auto bad = check_ids("stop_token_ids", sampling.stop_token_ids, runner_.config().vocab_size)) return *bad;
  std::shared_ptr<const text::Grammar> grammar;
  if (sampling.constraint) {
    auto made = text::constraint_grammar(sampling.constraint);
    if (!made) return error(made.error().code(), "constraint: {}", made.error().message());
    grammar = kept(std::move(*made));
  }
  if (sampling.prompt_logprobs && input.prompt.size() * static_cast<size_t>(*sampling.prompt_logprobs + 1) > kMostPromptLogprobs) {
    return error(Code::kInvalidArgument, "prompt: {} tokens; expected at most {} where {} log probabilities are asked for of each", input.prompt.size(),
                 kMostPromptLogprobs / static_cast<size_t>(*sampling.prompt_logprobs + 1), *sampling.prompt_logprobs + 1);
  }
  if (generated == 0) input.prompt_logprobs = sampling.prompt_logprobs.value_or(-1);  // else they were told with the first token
  input.max_tokens = sampling.max_tokens;
  input.salt = request.cache_salt;
  input.choice = {.temperature = sampling.temperature,
                  .top_k = sampling.top_k,
                  .top_p = sampling.top_p,
                  .min_p = sampling.min_p,
                  .repetition_penalty = sampling.repetition_penalty,
                  .presence_penalty = sampling.presence_penalty,
                  .frequency_penalty = sampling.frequency_penalty,
                  .logit_bias = sampling.logit_bias,
                  .ends = end_ids(tokenizer_, sampling),
                  .min_tokens = sampling.min_tokens,
                  .seed = sampling.seed.value_or(fresh_seed()),
                  .logprobs = sampling.logprobs.value_or(-1),
                  .constraint = sampling.constraint,
                  .grammar = std::move(grammar)};
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
  submission->generation = std::make_unique<Generation>(tokenizer_, request, input->prompt, std::move(sink));
  if (!submission->generation->take_up(request.generated_ids)) {
    --queued_;
    return error(Code::kInvalidArgument, "generated_ids: the text has ended with them");
  }
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
    stop_others();
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
    while (may_launch()) {
      auto step = scheduler_.next(prompt_rows());
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
    } else if (Clock::now() >= wake) {
      tell_others(StepKind::kIdle);
    }
  }
  while (auto message = messages_.try_take()) handle(std::move(*message));
}

void PipelineEngine::handle(Message message) {
  if (!message.submission) {  // a cancel
    scheduler_.remove(message.id);
    if (generations_.erase(message.id) > 0) --queued_;
    publish_stats();
    return;
  }
  auto& [input, generation] = *message.submission;
  if (!scheduler_.add(message.id, std::move(input))) {
    generation->fail(error(Code::kResourceExhausted, "the model's queue of {} requests is full; try again later", options_.max_waiting));
    --queued_;
    return;
  }
  generations_[message.id] = std::move(generation);
  publish_stats();
}

bool PipelineEngine::may_launch() const {
  const bool has_pieces = stages_.size() > 1 && std::ranges::any_of(in_flight_, [](const InFlight& flight) { return flight.step.plan.answers() == 0; });
  return static_cast<int>(in_flight_.size()) < stages_.size() + (has_pieces ? 1 : 0);
}

void PipelineEngine::launch(BatchScheduler::Step step) {
  InFlight flight{std::move(step), Clock::now(), {}, 0};
  for (InFlight& other : in_flight_) {
    flight.others_prompt_rows += other.step.prompt_rows;
    other.others_prompt_rows += flight.step.prompt_rows;
  }
  const StepPlan& plan = flight.step.plan;
  const bool alone = stages_.size() == 1;
  last_plan_ = Clock::now();
  ++steps_;
  if (!alone) {
    link_.send_plan(plan);
    link_.expect_samples(plan);
  }
  const std::vector<int64_t> ids(flight.step.tokens.begin(), flight.step.tokens.end());
  const at::Tensor out = runner_.forward(plan, at::tensor(ids, at::kLong));
  if (alone) {
    flight.sampled = runner_.sample(plan, out);
  } else {
    link_.send_hidden(out);
    if (plan.answers() == 0) (void)scheduler_.complete(flight.step, {});
  }
  in_flight_.push_back(std::move(flight));
}

void PipelineEngine::complete_oldest() {
  InFlight flight = std::move(in_flight_.front());
  in_flight_.pop_front();
  const StepPlan& plan = flight.step.plan;
  if (stages_.size() > 1) {
    flight.sampled = link_.wait_samples(plan);
    if (plan.answers() == 0) return;  // the scheduler knows already
  }
  const double step_ms = 1e3 * to_seconds(Clock::now() - flight.start);
  observe(flight, step_ms);
  hand_out(scheduler_.complete(flight.step, std::move(flight.sampled)), step_ms);
}

// Of a step that samples: others wait neither for the other stages nor for a GPU, so their time says little. What waits for it are streams, and between two of
// their tokens they wait for the prompts of all steps that are under way.
void PipelineEngine::observe(const InFlight& flight, double step_ms) {
  if (flight.step.plan.answers() == 0 && runner_.on_gpu()) return;
  chunks_.observe(flight.step.plan.rows() - flight.step.prompt_rows, flight.step.prompt_rows + flight.others_prompt_rows, step_ms);
}

// Rows of prompts that one more step may carry.
int PipelineEngine::prompt_rows() const {
  int rows = chunks_.prompt_rows();
  for (const InFlight& flight : in_flight_) rows -= flight.step.prompt_rows;
  return std::max(0, rows);
}

void PipelineEngine::hand_out(std::vector<BatchScheduler::Sampled> sampled, double step_ms) {
  std::vector<std::pair<std::unique_ptr<Generation>, GenerationEvent>> last;
  const auto forget = [&](RequestId id) {
    scheduler_.remove(id);
    generations_.erase(id);
    --queued_;
  };
  for (const auto& [id, token, is_sample, at_limit, cached_tokens] : sampled) {
    const auto generation = generations_.find(id);
    if (generation == generations_.end()) continue;
    generation->second->tell_prompt(token.prompt);
    if (!is_sample) continue;
    if (token.id == kNoFittingToken) {
      generation->second->fail(error(Code::kInvalidArgument, "the text cannot go on: no token of this model fits its constraint here, or finding one takes too many steps"));
      forget(id);
      continue;
    }
    if (token.id == kNotNumbers) {
      generation->second->fail(error(Code::kInternal, "the model's output is not a number: its weights or its activations are NaN or infinite; with bf16 or quantized weights, try fp32"));
      forget(id);
      continue;
    }
    generation->second->set_cached_tokens(cached_tokens);
    GenerationEvent event = generation->second->accept(token, at_limit, step_ms);
    const bool finished = event.finished;
    if (!finished && generation->second->push(std::move(event))) continue;
    if (finished) last.emplace_back(std::move(generation->second), std::move(event));
    forget(id);
  }
  publish_stats();  // before the last words of those that have ended: who hears them finds the pages free
  for (auto& [generation, event] : last) (void)generation->push(std::move(event));
}

void PipelineEngine::publish_stats() {
  EngineStats stats = scheduler_.stats();
  MutexLock lock(mutex_);
  stats_ = stats;
}

void PipelineEngine::tell_others(StepKind kind) {
  if (stages_.size() > 1) link_.send_plan({kind, {}});
  runner_.tell({kind, {}});
  last_plan_ = Clock::now();
}

void PipelineEngine::stop_others() {
  while (!in_flight_.empty()) complete_oldest();
  tell_others(StepKind::kStop);
  link_.flush();
}

void PipelineEngine::fail_all(const Error& error) {
  for (auto& [id, generation] : generations_) generation->fail(error);
  queued_ -= static_cast<int>(generations_.size());
  generations_.clear();
}

}  // namespace penstock::engine
