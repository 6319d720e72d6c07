#pragma once
// A model of this machine for one user: a worker group without a front door.
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "text/chat_template.h"
#include "text/generation_request.h"
#include "text/tokenizer.h"

namespace penstock {

struct LocalModelOptions {
  std::string model;       // a Hugging Face directory, a GGUF file, an archive, a folder with model-config.yaml
  int stages = 1;
  int tensor_ranks = 1;  // processes that share each layer of a stage
  std::string device = "auto";  // auto, cpu, cuda
  int threads = 0;         // of each stage; 0 = the machine's cores, shared by the stages
};

struct AnswerSummary {
  int tokens = 0;
  std::optional<Clock::duration> first_token;  // from the request
  Clock::duration total{};
  std::string reason;                          // "stop" or "length"; "Ctrl-C" when it was not wanted any more
};

// Starts the worker group in its constructor, ends it in its destructor. A worker that dies is started again, as by the front door.
//
// Threads: one.
class LocalModel {
 public:
  // Waits until the model is loaded and shows that on standard error. `wanted`: asked all the while; false gives it up.
  // Throws Error: why the model cannot be loaded; kCancelled.
  LocalModel(const LocalModelOptions& options, const std::function<bool()>& wanted);
  ~LocalModel();
  LocalModel(const LocalModel&) = delete;
  LocalModel& operator=(const LocalModel&) = delete;

  [[nodiscard]] const text::Tokenizer& tokenizer() const;
  [[nodiscard]] const Result<text::ChatTemplate>& chat_template() const;

  // Hands out the pieces of the answer as they come. `wanted`: asked twenty times a second; false ends the answer, which is no error.
  [[nodiscard]] Result<AnswerSummary> answer(text::GenerationRequest request, const std::function<bool()>& wanted,
                                             const std::function<void(std::string_view)>& on_text);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock
