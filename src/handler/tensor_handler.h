#pragma once
// Serves a model of tensors: requests in any of their forms, gathered into batches, answers split again.
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "handler/batcher.h"
#include "handler/handler.h"
#include "handler/tensor_request.h"

namespace penstock::handler {

// Threads: run() is called by one thread, the others by any.
class TensorModel {
 public:
  virtual ~TensorModel() = default;
  // Names of the inputs in order; empty: not known.
  [[nodiscard]] virtual std::vector<std::string> input_names() const = 0;
  // Errors: kInvalidArgument where the inputs do not fit the model; kResourceExhausted without memory for them; kInternal.
  [[nodiscard]] virtual Result<std::vector<Tensor>> run(const std::vector<Tensor>& inputs) = 0;
  // Its process has to be started anew, for run() will fail from now on.
  [[nodiscard]] virtual bool broken() const { return false; }
};

struct TensorHandlerOptions {
  std::string name = "torchscript";
  std::string model;               // for answers
  size_t batch_size = 1;           // requests of one run
  milliseconds max_batch_delay{0};
  RawInput raw;
};

// Requests whose inputs have the same names, types and shapes, but for the first dimension, run together: joined along it, and the outputs
// cut along it. What finds no memory is answered with status 507. Outputs that cannot be cut so (another first dimension, or none) make each request run alone, from then on at once.
//
// Threads:  every method from any thread; one thread of its own runs the model.
// Lifetime: the model must outlive the handler. The destructor drops what waits.
class TensorHandler final : public Handler {
 public:
  TensorHandler(TensorModel& model, TensorHandlerOptions options);
  ~TensorHandler() override;

  [[nodiscard]] HandlerInfo info() const override;
  [[nodiscard]] Result<RequestId> submit(Request request, std::shared_ptr<AnswerSink> sink) override EXCLUDES(mutex_);
  void cancel(RequestId id) override EXCLUDES(mutex_);
  void drain() override EXCLUDES(mutex_);

 private:
  struct Waiting {
    TensorRequest request;
    std::shared_ptr<AnswerSink> sink;
  };
  void loop() EXCLUDES(mutex_);
  [[nodiscard]] std::vector<Waiting> next_batch() EXCLUDES(mutex_);
  void run_batch(std::vector<Waiting> batch);
  [[nodiscard]] bool run_together(std::vector<Waiting>& batch);
  void answer(const Waiting& waiting, const Result<std::vector<Tensor>>& outputs) const;

  TensorModel& model_;
  const TensorHandlerOptions options_;
  Mutex mutex_;
  CondVar changed_;
  Batcher batcher_ GUARDED_BY(mutex_);
  std::map<RequestId, Waiting> waiting_ GUARDED_BY(mutex_);
  RequestId next_id_ GUARDED_BY(mutex_) = 1;
  bool draining_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  bool cannot_batch_ = false;  // owned by the thread
  std::thread thread_;         // last: it uses the members above
};

}  // namespace penstock::handler
