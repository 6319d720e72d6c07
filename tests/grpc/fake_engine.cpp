#include "fake_engine.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <sstream>
#include <utility>

#include "text/grammar.h"
#include "text/token_masks.h"
#include "text/utf8_stream.h"

namespace penstock::tests {
namespace {

std::vector<std::string> split_words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

// What a request asks for, as it came over the wire.
std::vector<std::string> sampling_words(const text::GenerationRequest& request) {
  const text::SamplingParams& s = request.sampling;
  std::vector<std::string> words = {fmt::format("min_tokens={}", s.min_tokens), fmt::format("min_p={}", s.min_p), fmt::format("repetition={}", s.repetition_penalty),
                                    fmt::format("presence={}", s.presence_penalty), fmt::format("frequency={}", s.frequency_penalty)};
  if (s.temperature != 1) words.push_back(fmt::format("temperature={}", s.temperature));
  if (s.top_k != 0) words.push_back(fmt::format("top_k={}", s.top_k));
  if (s.top_p != 1) words.push_back(fmt::format("top_p={}", s.top_p));
  for (const auto& [id, bias] : s.logit_bias) words.push_back(fmt::format("bias[{}]={}", id, bias));
  for (const int32_t id : s.stop_token_ids) words.push_back(fmt::format("stop={}", id));
  words.push_back("salt=" + request.cache_salt);
  if (!s.skip_special_tokens) words.emplace_back("special");
  if (s.constraint) words.push_back(fmt::format("constraint={}:{}", static_cast<int>(s.constraint.kind), s.constraint.source));
  return words;
}

// A text of bytes as random logits choose them among what the constraint leaves.
std::vector<std::string> constrained_text(const text::SamplingParams& sampling) {
  const text::Tokenizer tokenizer = text::byte_tokenizer();
  const auto grammar = std::make_shared<const text::Grammar>(text::constraint_grammar(sampling.constraint).value());
  text::ConstrainedText text(std::make_shared<text::TokenMasks>(grammar, std::make_shared<text::TokenTrie>(tokenizer)), {});
  std::mt19937_64 random(sampling.seed.value_or(0));
  const int32_t end = tokenizer.end_id();
  text::Utf8Stream characters;
  std::vector<std::string> said;
  for (auto next = text::TokenMasks::Next::kGoesOn; next == text::TokenMasks::Next::kGoesOn && said.size() < 2000;) {
    std::vector<float> logits(257);
    for (float& logit : logits) logit = static_cast<float>(random() % 1000);
    if (!text.restrict(logits, {&end, 1}, true)) break;
    const auto token = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    if (token == end) break;
    next = text.add(token);
    if (std::string whole = characters.feed(tokenizer.bytes_of(token)); !whole.empty()) said.push_back(std::move(whole));
  }
  return said;
}

std::vector<std::string> characters_of(std::string_view text) {
  text::Utf8Stream characters;
  std::vector<std::string> said;
  for (const char byte : text) {
    if (std::string whole = characters.feed({&byte, 1}); !whole.empty()) said.push_back(std::move(whole));
  }
  return said;
}

// Of a prompt whose words are tokens, with a special one before them.
std::vector<std::vector<text::TokenLogprob>> prompt_logprobs(const text::GenerationRequest& request) {
  std::vector<std::vector<text::TokenLogprob>> tokens = {{{0, std::nan(""), "<s>"}}};
  for (const std::string& word : split_words(request.prompt)) {
    std::vector<text::TokenLogprob>& token = tokens.emplace_back();
    token.push_back({100, -0.25, (tokens.size() > 2 ? " " : "") + word});
    for (int i = 1; i <= *request.sampling.prompt_logprobs; ++i) token.push_back({i, -1.0 * i, "w" + std::to_string(i)});
  }
  return tokens;
}

}  // namespace

FakeEngine::FakeEngine(FakeEngineOptions options) : options_(options), thread_([this] { loop(); }) {}

FakeEngine::~FakeEngine() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    stop_.notify_all();
  }
  thread_.join();
}

engine::EngineInfo FakeEngine::info() const { return {"FakeForCausalLM", options_.max_sequence_tokens, options_.max_concurrent, 2}; }

std::optional<engine::EngineStats> FakeEngine::stats() const {
  MutexLock lock(mutex_);
  engine::EngineStats stats = stats_;
  stats.running = static_cast<int64_t>(std::min(requests_.size(), static_cast<size_t>(options_.max_concurrent)));
  stats.waiting = static_cast<int64_t>(requests_.size()) - stats.running;
  stats.pages = 10;
  stats.pages_held = static_cast<int64_t>(requests_.size());
  return stats;
}

Result<engine::RequestId> FakeEngine::submit(const text::GenerationRequest& request, std::shared_ptr<engine::EventSink> sink) {
  auto words = split_words(request.prompt);
  for (const int32_t id : request.prompt_ids) words.push_back(std::to_string(id));
  if (static_cast<int>(words.size()) >= options_.max_sequence_tokens) {
    return error(Code::kInvalidArgument, "prompt: {} tokens; expected fewer than {}", words.size(), options_.max_sequence_tokens);
  }
  if (words.empty()) words.emplace_back("_");
  if (words[0] == "[crash]") std::abort();
  if (words[0] == "[sampling]") words = sampling_words(request);
  const bool once = words[0] == "[constrained]" || words[0] == "[say]";
  if (words[0] == "[constrained]") words = constrained_text(request.sampling);
  else if (once) words = characters_of(std::string_view(request.prompt).substr(std::min(request.prompt.size(), request.prompt.find("[say]") + 6)));
  if (words.empty()) words.emplace_back("_");
  MutexLock lock(mutex_);
  if (draining_) return Error(Code::kUnavailable, "the engine is stopping");
  const auto id = next_id_++;
  stats_.prefix_queries += static_cast<int64_t>(words.size());
  stats_.prefix_hits += 1;
  const int steps = static_cast<int>(request.generated_ids.size());  // goes on after these
  requests_.push_back(std::make_shared<Running>(Running{id, request, std::move(sink), std::move(words), once, steps}));
  return id;
}

void FakeEngine::cancel(engine::RequestId id) {
  MutexLock lock(mutex_);
  for (auto& request : requests_) {
    if (request->id == id) request->cancelled = true;
  }
}

void FakeEngine::drain() {
  MutexLock lock(mutex_);
  draining_ = true;
}

// The first max_concurrent requests run; the others wait.
void FakeEngine::loop() {
  for (;;) {
    std::vector<std::shared_ptr<Running>> batch;
    {
      MutexLock lock(mutex_);
      const Deadline next = options_.spread && !requests_.empty() ? Deadline::after(milliseconds(0)) : Deadline::after(options_.step);
      while (!stopping_ && !next.passed()) (void)stop_.wait(mutex_, next);
      if (stopping_) return;
      for (auto it = requests_.begin(); it != requests_.end();) {
        if (!(*it)->cancelled) {
          ++it;
          continue;
        }
        fmt::print(stderr, "request {} cancelled after {} steps\n", (*it)->id, (*it)->steps);
        it = requests_.erase(it);
      }
      const size_t count = std::min(requests_.size(), static_cast<size_t>(options_.max_concurrent));
      batch.assign(requests_.begin(), requests_.begin() + static_cast<std::ptrdiff_t>(count));
    }
    const auto begin = Clock::now();
    for (size_t i = 0; i < batch.size(); ++i) {
      const auto& request = batch[i];
      if (options_.spread) std::this_thread::sleep_until(begin + options_.step * static_cast<int64_t>(i) / static_cast<int64_t>(batch.size()));
      if (!step(*request)) continue;
      MutexLock lock(mutex_);
      requests_.erase(std::find(requests_.begin(), requests_.end(), request));
    }
  }
}

// One token of one request. true: the request has ended.
bool FakeEngine::step(Running& request) const {
  const std::string& rule = request.words[0];
  if (rule == "[hang]") return false;
  engine::GenerationEvent event;
  event.text = request.words[static_cast<size_t>(request.steps) % request.words.size()] + (request.once ? "" : " ");
  if (rule == "[big]") event.text.assign(16384, 'x');
  if (rule == "[clock]") event.text = std::to_string(std::chrono::nanoseconds(Clock::now().time_since_epoch()).count());
  if (request.request.sampling.logprobs) {
    event.logprobs.assign(static_cast<size_t>(*request.request.sampling.logprobs) + 1, {request.steps, -0.5, event.text});
    for (size_t i = 1; i < event.logprobs.size(); ++i) event.logprobs[i] = {static_cast<int32_t>(i), -1.0 * static_cast<double>(i), "w" + std::to_string(i)};
  }
  if (request.request.sampling.prompt_logprobs && request.steps == 0) event.prompt_logprobs = prompt_logprobs(request.request);
  event.token_id = request.steps++;
  event.step_ms = to_seconds(options_.step) * 1e3;
  const int most = std::min(request.request.sampling.max_tokens, options_.max_sequence_tokens - static_cast<int>(request.words.size()));
  const bool said = request.once && request.steps == static_cast<int>(request.words.size());
  event.finished = said || request.steps >= most;
  event.reason = said ? engine::FinishReason::kStop : engine::FinishReason::kLength;
  event.usage = {static_cast<int>(request.words.size()), request.steps, 1};
  if (rule == "[error]") {
    event.finished = true;
    event.reason = engine::FinishReason::kError;
    event.error = Error(Code::kInternal, "the fake engine was told to fail");
  }
  const bool finished = event.finished;
  const bool wanted = request.sink->push(std::move(event));
  if (!finished && wanted) return false;
  if (rule == "[clock]") return true;
  fmt::print(stderr, "request {} {} after {} steps\n", request.id, finished ? "finished" : "cancelled", request.steps);
  return true;
}

}  // namespace penstock::tests
