#include "rpc/stream_predictions.h"

#include "rpc/job_stream_reactor.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "frontend/model_registry.h"
#include "rpc/failed_answer.h"
#include "rpc/predictions_request.h"
#include "rpc/trailing_usage.h"
#include "torchserve/inference.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = org::pytorch::serve::grpc::inference;

class PredictionWriter final : public EventWriter<pb::PredictionResponse> {
 public:
  // Before the job.
  void set_sequence(std::string id) { sequence_id_ = std::move(id); }

  std::optional<pb::PredictionResponse> message(const frontend::WorkerEvent& event) override {
    if (event.finished) finished_ = event.finished;
    if (failed_.take(event) || event.bytes.empty()) return std::nullopt;
    pb::PredictionResponse message;
    message.set_prediction(event.bytes);
    if (sequence_id_) message.set_sequence_id(*sequence_id_);
    return message;
  }
  std::optional<Error> outcome() const override { return failed_.failure(); }
  void add_trailers(grpc::CallbackServerContext& context) const override {
    if (finished_) add_trailing_usage(context, *finished_);
  }

 private:
  std::optional<std::string> sequence_id_;
  FailedAnswer failed_;
  std::optional<frontend::FinishedInfo> finished_;
};

}  // namespace

grpc::ServerWriteReactor<pb::PredictionResponse>* start_stream_predictions(grpc::CallbackServerContext& context,
                                                                           const pb::PredictionsRequest& message,
                                                                           const frontend::ModelRegistry& registry,
                                                                           size_t max_waiting_messages, CallRecord record) {
  const auto writer = std::make_shared<PredictionWriter>();
  const auto read = [&](frontend::JobOptions options) -> Result<StreamCall> {
    auto call = parse_predictions_request(message, registry);
    if (!call) return call.error();
    if (call->sequence) writer->set_sequence(call->sequence->id);
    options.sequence = std::move(call->sequence);
    return StreamCall{std::move(call->model), std::move(call->payload), std::move(options)};
  };
  return new JobStreamReactor<pb::PredictionResponse>(context, writer, max_waiting_messages, std::move(record), read);
}

}  // namespace penstock::rpc
