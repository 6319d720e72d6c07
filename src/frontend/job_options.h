#pragma once
// What is known of a job besides what the model sees of it.
#include <string>

#include "base/clock.h"
#include "frontend/model_meter.h"
#include "frontend/trace_context.h"
#include "frontend/waiting_line.h"

namespace penstock::frontend {

struct JobOptions {
  Priority priority = Priority::kNormal;
  std::string client = {};               // who asks: clients that wait take turns (waiting_line.h)
  Deadline deadline = Deadline::never(); // the caller's: the job's longest life
  Protocol protocol = Protocol::kGrpc;  // over which it came
  std::string request_id = {};          // for logs
  RequestTrace trace = {};
};

}  // namespace penstock::frontend
