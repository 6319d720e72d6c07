#include "rpc/infer_call.h"

#include <boost/beast/core/detail/base64.hpp>

#include <optional>
#include <utility>

#include "base/mutex.h"
#include "base/uuid.h"
#include "handler/infer_message.h"
#include "text/generation_request.h"

namespace penstock::rpc {
namespace {

std::string base64(std::string_view bytes) {
  namespace coder = boost::beast::detail::base64;
  std::string text(coder::encoded_size(bytes.size()), '\0');
  text.resize(coder::encode(text.data(), bytes.data(), bytes.size()));
  return text;
}

Result<frontend::Payload> text_payload(const InferInputs& inputs) {
  const bool one = inputs.tensors.size() == 1 && inputs.tensors[0].type == handler::DataType::kBytes;
  const auto items = one ? handler::items_of(inputs.tensors[0]) : std::vector<std::string_view>();
  if (items.size() != 1) {
    return Error(Code::kInvalidArgument, "inputs: expected one BYTES tensor of one item, a prompt or a JSON object: the model generates text");
  }
  auto request = text::parse_generation_request(items[0]);
  if (!request) return request.error();
  return frontend::Payload(std::move(*request));
}

// As TorchServe gives it to Python handlers.
handler::Request json_request(const std::string& model, const InferInputs& inputs) {
  handler::InferMessage message{model, inputs.id, inputs.tensors};
  for (handler::Tensor& tensor : message.tensors) {
    if (tensor.type != handler::DataType::kBytes) continue;
    const auto items = handler::items_of(tensor);
    std::string encoded;
    for (const std::string_view item : items) handler::append_item(encoded, base64(item));
    tensor.data = std::move(encoded);
  }
  return {make_uuid(), {}, {{"body", "application/json", handler::infer_json(message, "inputs", nullptr)}}};
}

handler::Request binary_request(const std::string& model, const InferInputs& inputs) {
  std::string binary;
  std::string body = handler::infer_json({model, inputs.id, inputs.tensors}, "inputs", &binary);
  const std::string length = std::to_string(body.size());
  return {make_uuid(), {{handler::kInferenceHeader, length}}, {{"body", "application/octet-stream", body + binary}}};
}

class TensorGatherer final : public frontend::RequestObserver {
 public:
  using Done = std::function<void(Result<std::vector<handler::Tensor>>)>;
  TensorGatherer(size_t limit, Error too_long, Done done) : limit_(limit), too_long_(std::move(too_long)), done_(std::move(done)) {}

  bool on_event(const frontend::WorkerEvent& event) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (!done_) return false;
    if (failed_.take(event)) return true;
    if (event.head) head_ = event.head;
    bytes_ += event.bytes;
    return bytes_.size() <= limit_;  // the job ends as cancelled; outcome() says why
  }
  void on_done(const std::optional<Error>& failure) override EXCLUDES(mutex_) {
    Done done;
    std::optional<Result<std::vector<handler::Tensor>>> result;
    {
      MutexLock lock(mutex_);
      done = std::exchange(done_, nullptr);
      if (done) result = outcome(failure);
    }
    if (done) done(std::move(*result));
  }

 private:
  Result<std::vector<handler::Tensor>> outcome(const std::optional<Error>& failure) const REQUIRES(mutex_) {
    if (bytes_.size() > limit_) return too_long_;
    if (failure) return *failure;
    if (const auto failed = failed_.failure()) return *failed;
    if (head_) return handler::parse_infer_answer(*head_, bytes_);
    handler::Tensor text{"text", handler::DataType::kBytes, {1}, ""};
    handler::append_item(text.data, bytes_);
    return std::vector<handler::Tensor>{std::move(text)};
  }

  const size_t limit_;
  const Error too_long_;
  Mutex mutex_;
  Done done_ GUARDED_BY(mutex_);  // null once called
  std::optional<handler::AnswerHead> head_ GUARDED_BY(mutex_);
  std::string bytes_ GUARDED_BY(mutex_);
  FailedAnswer failed_ GUARDED_BY(mutex_);
};

}  // namespace

Result<frontend::Payload> infer_payload(const frontend::ServedModel& model, const InferInputs& inputs) {
  if (model.spec().handler_kind == frontend::HandlerKind::kText) return text_payload(inputs);
  const bool typed = model.spec().handler_kind == frontend::HandlerKind::kTorchscript;
  handler::Request request = typed ? binary_request(model.name(), inputs) : json_request(model.name(), inputs);
  if (auto bad = check_request(request)) return *bad;
  return frontend::Payload(std::move(request));
}

std::shared_ptr<frontend::RequestObserver> gather_tensors(size_t limit, Error too_long,
                                                          std::function<void(Result<std::vector<handler::Tensor>>)> done) {
  return std::make_shared<TensorGatherer>(limit, std::move(too_long), std::move(done));
}

const char* platform_of(const frontend::ServedModel& model) {
  switch (model.spec().handler_kind) {
    case frontend::HandlerKind::kText: return "penstock_llm";
    case frontend::HandlerKind::kTorchscript: return "pytorch_torchscript";
    case frontend::HandlerKind::kLibrary: return "penstock_library";
    case frontend::HandlerKind::kPython: break;
  }
  return "python";
}

}  // namespace penstock::rpc
