#pragma once
// What is known of a job besides what the model sees of it.
#include <optional>
#include <string>

#include "base/clock.h"
#include "frontend/model_meter.h"
#include "frontend/trace_context.h"
#include "frontend/waiting_line.h"

namespace penstock::frontend {

// Requests of one sequence run one after another, on one group. The first one of bytes is told so by the header `begin_header`: true.
struct SequenceMark {
  std::string id;
  bool last = false;  // the client says that the sequence ends with it
  std::string begin_header;
};

struct JobOptions {
  Priority priority = Priority::kNormal;
  std::string client = {};               // who asks: clients that wait take turns (waiting_line.h)
  Deadline deadline = Deadline::never(); // the caller's: the job's longest life
  Protocol protocol = Protocol::kGrpc;  // over which it came
  std::string request_id = {};          // for logs
  RequestTrace trace = {};
  using Sequence = SequenceMark;
  std::optional<Sequence> sequence = {};
};

}  // namespace penstock::frontend
