#include "frontend/model_meter.h"

#include <algorithm>
#include <cstdint>

#include "frontend/metric_lines.h"
#include "frontend/worker_client.h"

namespace penstock::frontend {
namespace {

uint64_t to_us(Clock::duration d) { return static_cast<uint64_t>(std::max<int64_t>(0, std::chrono::duration_cast<microseconds>(d).count())); }
double to_ms(Clock::duration d) { return to_seconds(d) * 1e3; }

}  // namespace

void ModelMeter::submitted() {
  torchserve_.requests->add();
  if (lines_) lines_->version("ts_inference_requests_total", "Count", 1, names_.model, names_.version);
}

void ModelMeter::started(Protocol protocol, Clock::duration queued, Clock::duration dispatch) {
  times(protocol).queue->observe(to_seconds(queued));
  torchserve_.queue_us->add(to_us(queued));
  torchserve_.queue_ms->set(to_ms(queued));
  torchserve_.dispatch_ms->set(to_ms(dispatch));
  if (!lines_) return;
  lines_->version("ts_queue_latency_microseconds", "Microseconds", static_cast<double>(to_us(queued)), names_.model, names_.version);
  lines_->host("QueueTime", "Milliseconds", to_ms(queued));
  lines_->host("WorkerThreadTime", "Milliseconds", to_ms(dispatch));
}

const ModelMeter::Text& ModelMeter::text() {
  std::call_once(text_once_, [this] { text_ = make_text_(); });
  return text_;
}

void ModelMeter::token(bool first, Clock::duration since) { (first ? text().first_token : text().between_tokens)->observe(to_seconds(since)); }

void ModelMeter::generated(const FinishedInfo& info, Clock::duration since_submit) {
  const Text& counts = text();
  counts.total->observe(to_seconds(since_submit));
  counts.prompt_length->observe(info.prompt_tokens);
  counts.length->observe(info.completion_tokens);
  counts.prompt_tokens->add(static_cast<uint64_t>(std::max(0, info.prompt_tokens)));
  counts.tokens->add(static_cast<uint64_t>(std::max(0, info.completion_tokens)));
  (info.reason == "length" ? counts.at_limit : counts.stopped)->add();
}

void ModelMeter::ended(Protocol protocol, Clock::duration total, Clock::duration at_worker, const std::optional<Error>& failure,
                       std::string_view request_id) {
  times(protocol).total->observe(to_seconds(total));
  torchserve_.latency_us->add(to_us(total));
  if (at_worker > Clock::duration::zero()) {
    torchserve_.worker_ms->set(to_ms(at_worker));
    torchserve_.handler_ms->set(to_ms(at_worker));
  }
  if (failure) failed_(protocol, failure->code());
  else times(protocol).ok->add();
  if (!lines_) return;
  lines_->version("ts_inference_latency_microseconds", "Microseconds", static_cast<double>(to_us(total)), names_.model, names_.version);
  if (at_worker <= Clock::duration::zero()) return;
  lines_->model("HandlerTime", "ms", to_ms(at_worker), names_.model, request_id);
  lines_->model("PredictionTime", "ms", to_ms(at_worker), names_.model, request_id);
}

}  // namespace penstock::frontend
