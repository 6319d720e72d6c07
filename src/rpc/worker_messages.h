#pragma once
// Our types and the messages of proto/worker.proto, both ways. Internal to rpc/.
#include "engine/engine.h"
#include "frontend/worker_client.h"
#include "handler/handler.h"

namespace penstock::worker::v1 {
class Command;
class End;
class EngineStats;
class Event;
class GenerateRequest;
class PredictRequest;
}  // namespace penstock::worker::v1

namespace penstock::rpc {

// The front door's side.
[[nodiscard]] worker::v1::Command to_command(const frontend::Payload& payload);
[[nodiscard]] frontend::WorkerEvent to_worker_event(worker::v1::Event& event);  // REQUIRES: no end
[[nodiscard]] frontend::EngineFigures from_proto(const worker::v1::EngineStats& stats);
[[nodiscard]] Error to_error(const worker::v1::End& end);                       // a code that gRPC does not have: kInternal

// The worker's side.
[[nodiscard]] text::GenerationRequest from_proto(const worker::v1::GenerateRequest& request);
[[nodiscard]] handler::Request from_proto(const worker::v1::PredictRequest& request);
void fill(worker::v1::EngineStats& message, const engine::EngineStats& stats);
[[nodiscard]] worker::v1::Event to_proto(engine::GenerationEvent& event);
[[nodiscard]] worker::v1::Event to_proto(handler::AnswerEvent& event);
[[nodiscard]] worker::v1::Event end_event(const Error& failure);

}  // namespace penstock::rpc
