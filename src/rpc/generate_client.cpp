#include "rpc/generate_client.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "rpc/status_map.h"
#include "rpc/trailing_usage.h"
#include "torchserve/inference.grpc.pb.h"

namespace penstock::rpc {

namespace pb = org::pytorch::serve::grpc::inference;

class GenerateClient::Impl {
 public:
  explicit Impl(const ServerAddress& server)
      : address_(server.address),
        channel_(make_channel(server)),
        stub_(pb::InferenceAPIsService::NewStub(channel_)) {
    if (!server.key.empty()) context_.AddMetadata("authorization", "Bearer " + server.key);
  }

  Result<StreamSummary> stream(const StreamRequest& request, Deadline connect_by, const std::function<void(std::string_view)>& on_text) {
    if (!connect(*channel_, connect_by)) return error(Code::kUnavailable, "no server answers at {}", address_);
    pb::PredictionsRequest message;
    message.set_model_name(request.model);
    message.set_model_version(request.version);
    (*message.mutable_input())["data"] = request.data;

    StreamSummary summary;
    const auto start = Clock::now();
    const auto reader = stub_->StreamPredictions(&context_, message);
    for (pb::PredictionResponse piece; reader->Read(&piece);) {
      if (summary.messages++ == 0) summary.first_message = Clock::now() - start;
      on_text(piece.prediction());
    }
    const grpc::Status status = reader->Finish();
    summary.total = Clock::now() - start;
    if (!status.ok()) return to_error(status);
    summary.finished = read_trailing_usage(context_);
    return summary;
  }

  void cancel() { context_.TryCancel(); }

 private:
  const std::string address_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<pb::InferenceAPIsService::Stub> stub_;
  grpc::ClientContext context_;  // of the one call that a client makes
};

GenerateClient::GenerateClient(const ServerAddress& server) : impl_(std::make_unique<Impl>(server)) {}
GenerateClient::~GenerateClient() = default;

Result<StreamSummary> GenerateClient::stream(const StreamRequest& request, Deadline connect_by,
                                             const std::function<void(std::string_view)>& on_text) {
  return impl_->stream(request, connect_by, on_text);
}
void GenerateClient::cancel() { impl_->cancel(); }

}  // namespace penstock::rpc
