#pragma once
// What is known of a job besides what the model sees of it.
#include <string>

#include "frontend/model_meter.h"
#include "frontend/trace_context.h"

namespace penstock::frontend {

struct JobOptions {
  Protocol protocol = Protocol::kGrpc;  // over which it came
  std::string request_id = {};          // for logs
  RequestTrace trace = {};
};

}  // namespace penstock::frontend
