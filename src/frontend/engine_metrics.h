#pragma once
// What the engines of models that generate text do, under vLLM's names.
#include <memory>
#include <span>

#include "base/metrics.h"

namespace penstock::frontend {

class ServedModel;

// Writes gauges and counters of each model's engines, which say what they do with their answers.
// Threads: any.
void write_engine_metrics(MetricText& text, std::span<const std::shared_ptr<ServedModel>> models);

}  // namespace penstock::frontend
