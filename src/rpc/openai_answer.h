#pragma once
// The generations of one OpenAI request as one HTTP answer. Internal to rpc/.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "frontend/job.h"
#include "frontend/served_model.h"
#include "rpc/http_message.h"
#include "text/openai_answer.h"

namespace penstock::rpc {

// A failure before anything was sent, with the headers that tell clients whether and when to try again.
[[nodiscard]] HttpResponse openai_response(const text::OpenAiFailure& failure);

struct OpenAiAnswerOptions {
  bool stream = false;
  int choices_per_prompt = 1;
  std::vector<std::string> prompts;  // by prompt, that the texts of its choices begin with; none: without echo
  bool prompt_only = false;          // what is generated is not shown
  bool logprobs = false;             // were asked for
  std::optional<int> prompt_logprobs = {};  // of the prompt, so many: vLLM's field
  int echo_logprobs = 0;             // of the prompts that are repeated, so many, with `logprobs`
  text::OpenAiKind kind = text::OpenAiKind::kCompletion;
  std::string prompt_field;          // of the request, for complaints about the prompt
  size_t max_bytes = 0;              // of all texts of a whole answer
  std::optional<text::ToolReading> tools = {};  // how the texts call tools; none: they do not
};

// Gathers texts and answers when the last generation has ended, or sends each piece as an event. The first failure ends all of it.
//
// Threads: every method from any thread.
// Owns:    its jobs, until it has ended; then it cancels those that still run.
class OpenAiAnswer : public std::enable_shared_from_this<OpenAiAnswer> {
 public:
  OpenAiAnswer(std::shared_ptr<HttpReply> reply, text::OpenAiWriter writer, size_t num_choices, OpenAiAnswerOptions options);

  // Where the generation of choice `index` reports.
  [[nodiscard]] std::shared_ptr<frontend::RequestObserver> observer(size_t index);
  // Cancelled at once if the answer has ended.
  void add_job(const std::shared_ptr<frontend::ServedModel>& model, std::shared_ptr<frontend::Job> job) EXCLUDES(mutex_);
  // Ends the answer with an error.
  void fail(const Error& error) EXCLUDES(mutex_);
  // The client has gone.
  void cancel() EXCLUDES(mutex_);

 private:
  class Observer;
  struct Choice {
    text::OpenAiChoice answer;  // of a stream: without the text
    bool begun = false;
    bool finished = false;      // its last event is there
    std::optional<text::ToolCallReader> tools;
    std::vector<text::TokenChoices> logprobs;  // of tokens that were not sent yet
    int64_t characters = 0;     // of its text before these
  };

  bool on_event(size_t index, const frontend::WorkerEvent& event) EXCLUDES(mutex_);
  void on_done(size_t index, const std::optional<Error>& failure) EXCLUDES(mutex_);
  bool take(size_t index, const frontend::WorkerEvent& event) REQUIRES(mutex_);
  void take_logprobs(size_t index, const frontend::WorkerEvent& event) REQUIRES(mutex_);
  void take_prompt_logprobs(size_t index, const frontend::WorkerEvent& event) REQUIRES(mutex_);
  [[nodiscard]] std::string logprobs_of(Choice& choice) REQUIRES(mutex_);
  [[nodiscard]] text::ToolText read_tools(Choice& choice, const frontend::WorkerEvent& event, std::string text) REQUIRES(mutex_);
  void gather(Choice& choice, const text::ToolText& said) REQUIRES(mutex_);
  [[nodiscard]] bool stream(size_t index, const frontend::WorkerEvent& event, const text::ToolText& said) REQUIRES(mutex_);
  [[nodiscard]] bool send_chunk(std::string events) REQUIRES(mutex_);
  void complete() REQUIRES(mutex_);
  void fail_locked(const Error& error) REQUIRES(mutex_);
  void cancel_jobs() EXCLUDES(mutex_);

  const std::shared_ptr<HttpReply> reply_;
  const text::OpenAiWriter writer_;
  const OpenAiAnswerOptions options_;
  Mutex mutex_;  // held while the reply is called, which only queues: events must not change places
  std::vector<Choice> choices_ GUARDED_BY(mutex_);
  text::OpenAiUsage usage_ GUARDED_BY(mutex_);
  size_t bytes_ GUARDED_BY(mutex_) = 0;
  size_t num_done_ GUARDED_BY(mutex_) = 0;
  bool begun_ GUARDED_BY(mutex_) = false;  // the head of a stream was sent
  bool ended_ GUARDED_BY(mutex_) = false;
  std::shared_ptr<frontend::ServedModel> model_ GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<frontend::Job>> jobs_ GUARDED_BY(mutex_);
};

}  // namespace penstock::rpc
