#include "rpc/openai_answer.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace penstock::rpc {
namespace {

// About, as JSON.
size_t json_bytes(const text::TokenChoices& tokens) {
  size_t bytes = 0;
  for (const text::TokenLogprob& token : tokens) bytes += 64 + 4 * token.bytes.size();
  return bytes;
}

}  // namespace

HttpResponse openai_response(const text::OpenAiFailure& failure) {
  HttpResponse response{failure.status, "application/json", text::failure_json(failure) + "\n", {}};
  if (failure.status == 429 || failure.status == 503) {
    response.headers.emplace_back("retry-after", "1");
    response.headers.emplace_back("retry-after-ms", "1000");
  } else if (failure.status == 500 || failure.status == 501) {
    response.headers.emplace_back("x-should-retry", "false");  // clients would, and get the same
  }
  return response;
}

// One choice's way into the answer.
class OpenAiAnswer::Observer final : public frontend::RequestObserver {
 public:
  Observer(std::shared_ptr<OpenAiAnswer> answer, size_t index) : answer_(std::move(answer)), index_(index) {}
  bool on_event(const frontend::WorkerEvent& event) override { return answer_->on_event(index_, event); }
  void on_done(const std::optional<Error>& failure) override { answer_->on_done(index_, failure); }

 private:
  const std::shared_ptr<OpenAiAnswer> answer_;
  const size_t index_;
};

OpenAiAnswer::OpenAiAnswer(std::shared_ptr<HttpReply> reply, text::OpenAiWriter writer, size_t num_choices, OpenAiAnswerOptions options)
    : reply_(std::move(reply)), writer_(std::move(writer)), options_(std::move(options)), choices_(num_choices) {
  if (!options_.tools) return;
  for (Choice& choice : choices_) choice.tools.emplace(*options_.tools);
}

std::shared_ptr<frontend::RequestObserver> OpenAiAnswer::observer(size_t index) { return std::make_shared<Observer>(shared_from_this(), index); }

void OpenAiAnswer::add_job(const std::shared_ptr<frontend::ServedModel>& model, std::shared_ptr<frontend::Job> job) {
  {
    MutexLock lock(mutex_);
    if (!ended_) {
      model_ = model;
      jobs_.push_back(std::move(job));
      return;
    }
  }
  model->jobs().cancel(*job);
}

void OpenAiAnswer::fail(const Error& error) {
  {
    MutexLock lock(mutex_);
    if (!ended_) fail_locked(error);
  }
  cancel_jobs();
}

void OpenAiAnswer::cancel() {
  {
    MutexLock lock(mutex_);
    ended_ = true;
  }
  cancel_jobs();
}

bool OpenAiAnswer::on_event(size_t index, const frontend::WorkerEvent& event) {
  bool wanted = false;
  {
    MutexLock lock(mutex_);
    if (!ended_) wanted = take(index, event);
  }
  if (!wanted) cancel_jobs();
  return wanted;
}

void OpenAiAnswer::on_done(size_t index, const std::optional<Error>& failure) {
  {
    MutexLock lock(mutex_);
    if (!ended_) {
      if (failure) fail_locked(*failure);
      else if (!choices_[index].finished) fail_locked(Error(Code::kInternal, "the worker ended the generation without saying why"));
      else if (++num_done_ == choices_.size()) complete();
    }
    if (!ended_) return;
  }
  cancel_jobs();
}

// false: the answer has ended.
bool OpenAiAnswer::take(size_t index, const frontend::WorkerEvent& event) {
  Choice& choice = choices_[index];
  const auto per_prompt = static_cast<size_t>(options_.choices_per_prompt);
  std::string text;
  if (!choice.begun && !options_.prompts.empty()) text = options_.prompts[index / per_prompt];
  if (!options_.prompt_only) text += event.bytes;
  if (event.finished) {
    choice.finished = true;
    choice.answer.finish_reason = options_.prompt_only ? "length" : event.finished->reason;
    if (index % per_prompt == 0) {
      usage_.prompt_tokens += event.finished->prompt_tokens;
      usage_.cached_tokens += event.finished->cached_tokens;
    }
    if (!options_.prompt_only) usage_.completion_tokens += event.finished->completion_tokens;
  }
  take_logprobs(index, event);
  const text::ToolText said = read_tools(choice, event, std::move(text));
  if (options_.stream) return stream(index, event, said);
  gather(choice, said);
  if (bytes_ <= options_.max_bytes) return true;
  fail_locked(error(Code::kInvalidArgument, "the answer is longer than {} bytes (max_response_size); ask for fewer max_tokens or stream it", options_.max_bytes));
  return false;
}

// The text without the calls that are in it, and these.
text::ToolText OpenAiAnswer::read_tools(Choice& choice, const frontend::WorkerEvent& event, std::string text) {
  if (!choice.tools) return {std::move(text), {}};
  text::ToolText said = choice.tools->feed(text);
  if (!event.finished) return said;
  text::ToolText rest = choice.tools->end();
  said.content += rest.content;
  std::ranges::move(rest.calls, std::back_inserter(said.calls));
  if (choice.tools->called() && choice.answer.finish_reason == "stop") choice.answer.finish_reason = "tool_calls";
  return said;
}

// Of an answer that is sent in one piece.
void OpenAiAnswer::gather(Choice& choice, const text::ToolText& said) {
  choice.begun = true;
  choice.answer.text += said.content;
  bytes_ += said.content.size();
  for (const text::ToolCallPiece& piece : said.calls) {
    auto& calls = choice.answer.calls;
    if (calls.empty() || calls.back().index != piece.index) calls.push_back(piece);
    else calls.back().arguments += piece.arguments;
    bytes_ += 64 + piece.arguments.size();
  }
}

void OpenAiAnswer::take_logprobs(size_t index, const frontend::WorkerEvent& event) {
  take_prompt_logprobs(index, event);
  if (!options_.logprobs || options_.prompt_only || event.logprobs.empty()) return;
  if (!options_.stream) bytes_ += json_bytes(event.logprobs);
  choices_[index].logprobs.push_back(event.logprobs);
}

// Those of the prompt, which the first event has: for vLLM's field, and for a prompt that is repeated.
void OpenAiAnswer::take_prompt_logprobs(size_t index, const frontend::WorkerEvent& event) {
  if (event.prompt_logprobs.empty()) return;
  Choice& choice = choices_[index];
  if (options_.prompt_logprobs) {
    choice.answer.prompt_logprobs = text::prompt_logprobs_json(event.prompt_logprobs, *options_.prompt_logprobs);
    bytes_ += choice.answer.prompt_logprobs.size();
  }
  if (!options_.logprobs || options_.prompts.empty()) return;
  // The text begins with the prompt as it was given: special tokens before it have no place in it.
  choice.characters = text::characters_of(options_.prompts[index / static_cast<size_t>(options_.choices_per_prompt)]);
  for (const text::TokenChoices& tokens : event.prompt_logprobs) {
    if (tokens.empty()) continue;
    choice.characters -= text::characters_of(tokens.front().bytes);
    const size_t count = std::min(tokens.size(), static_cast<size_t>(options_.echo_logprobs) + 1);
    choice.logprobs.emplace_back(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(count));
    if (!options_.stream) bytes_ += json_bytes(choice.logprobs.back());
  }
}

// JSON of those that were not sent yet.
std::string OpenAiAnswer::logprobs_of(Choice& choice) {
  if (!options_.logprobs || ((options_.stream || options_.prompt_only) && choice.logprobs.empty())) return "null";
  const std::string json = text::openai_logprobs(options_.kind, choice.logprobs, choice.characters);
  choice.logprobs.clear();
  return json;
}

bool OpenAiAnswer::stream(size_t index, const frontend::WorkerEvent& event, const text::ToolText& said) {
  Choice& choice = choices_[index];
  if (!event.finished && said.content.empty() && said.calls.empty()) return true;
  const bool first = !std::exchange(choice.begun, true);
  const int number = static_cast<int>(index);
  const std::string logprobs = logprobs_of(choice);
  const text::OpenAiDelta delta{said.content, first, logprobs, said.calls};
  return send_chunk(event.finished ? writer_.last_chunk(number, delta, choice.answer.finish_reason) : writer_.chunk(number, delta));
}

// false: the client is gone, or does not read; the answer has ended.
bool OpenAiAnswer::send_chunk(std::string events) {
  if (!std::exchange(begun_, true)) reply_->begin_stream({200, "text/event-stream", "", {}});
  if (reply_->chunk(std::move(events))) return true;
  ended_ = true;
  return false;
}

void OpenAiAnswer::complete() {
  ended_ = true;
  if (options_.stream) {
    if (send_chunk(writer_.end(usage_))) reply_->end_stream(std::nullopt);
    return;
  }
  std::vector<text::OpenAiChoice> answers;
  for (Choice& choice : choices_) {
    choice.answer.logprobs = logprobs_of(choice);
    answers.push_back(std::move(choice.answer));
  }
  reply_->send({200, "application/json", writer_.whole(answers, usage_), {}});
}

void OpenAiAnswer::fail_locked(const Error& error) {
  ended_ = true;
  const text::OpenAiFailure failure = text::openai_failure(error, options_.prompt_field);
  if (!begun_) return reply_->send(openai_response(failure));
  if (reply_->chunk(text::failure_event(failure))) reply_->end_stream(std::nullopt);
}

void OpenAiAnswer::cancel_jobs() {
  std::shared_ptr<frontend::ServedModel> model;
  std::vector<std::shared_ptr<frontend::Job>> jobs;  // they hold this answer: they must go when it ends
  {
    MutexLock lock(mutex_);
    model = std::move(model_);
    jobs.swap(jobs_);
  }
  for (const auto& job : jobs) model->jobs().cancel(*job);  // harmless for those that have ended
}

}  // namespace penstock::rpc
