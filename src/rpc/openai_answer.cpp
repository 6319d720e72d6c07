#include "rpc/openai_answer.h"

#include <utility>

namespace penstock::rpc {

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
    : reply_(std::move(reply)), writer_(std::move(writer)), options_(std::move(options)), choices_(num_choices) {}

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
  if (options_.stream) return stream(index, event, std::move(text));
  choice.begun = true;
  choice.answer.text += text;
  bytes_ += text.size();
  if (bytes_ <= options_.max_bytes) return true;
  fail_locked(error(Code::kInvalidArgument, "the answer is longer than {} bytes (max_response_size); ask for fewer max_tokens or stream it", options_.max_bytes));
  return false;
}

void OpenAiAnswer::take_logprobs(size_t index, const frontend::WorkerEvent& event) {
  if (!options_.logprobs) return;
  Choice& choice = choices_[index];
  size_t bytes = 0;
  const auto take = [&](const text::TokenChoices& tokens) {
    if (tokens.empty()) return;
    for (const text::TokenLogprob& token : tokens) bytes += options_.stream ? 0 : 64 + 4 * token.bytes.size();  // about, as JSON
    choice.logprobs.push_back(tokens);
  };
  for (const text::TokenChoices& tokens : event.prompt_logprobs) take(tokens);
  if (!event.prompt_logprobs.empty() && !options_.prompts.empty()) {
    // The text begins with the prompt as it was given: special tokens before it have no place in it.
    choice.characters = text::characters_of(options_.prompts[index / static_cast<size_t>(options_.choices_per_prompt)]);
    for (const text::TokenChoices& tokens : event.prompt_logprobs) choice.characters -= tokens.empty() ? 0 : text::characters_of(tokens.front().bytes);
  }
  if (!options_.prompt_only) take(event.logprobs);
  bytes_ += bytes;
}

// JSON of those that were not sent yet.
std::string OpenAiAnswer::logprobs_of(Choice& choice) {
  if (!options_.logprobs || ((options_.stream || options_.prompt_only) && choice.logprobs.empty())) return "null";
  const std::string json = text::openai_logprobs(options_.kind, choice.logprobs, choice.characters);
  choice.logprobs.clear();
  return json;
}

bool OpenAiAnswer::stream(size_t index, const frontend::WorkerEvent& event, std::string text) {
  Choice& choice = choices_[index];
  if (!event.finished && text.empty()) return true;
  const bool first = !std::exchange(choice.begun, true);
  const int number = static_cast<int>(index);
  const std::string logprobs = logprobs_of(choice);
  return send_chunk(event.finished ? writer_.last_chunk(number, text, choice.answer.finish_reason, first, logprobs) : writer_.chunk(number, text, first, logprobs));
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
