#include "frontend/engine_metrics.h"

#include <algorithm>
#include <string>
#include <vector>

#include "frontend/served_model.h"

namespace penstock::frontend {
namespace {

using EngineUse = JobQueue::EngineUse;

// An engine says what it does when it answers. Who runs nothing holds nothing, though its last word was another.
int64_t running(const EngineUse& engine) { return engine.figures ? std::min<int64_t>(engine.jobs, engine.figures->running) : engine.jobs; }

double held_share(const EngineUse& engine) {
  const auto& figures = engine.figures;
  return engine.jobs == 0 || !figures || figures->pages == 0 ? 0 : static_cast<double>(figures->pages_held) / static_cast<double>(figures->pages);
}

struct TextModel {
  const ServedModel* model;
  size_t queued;
  std::vector<EngineUse> engines;
};

void write_of_models(MetricText& text, const std::vector<TextModel>& models) {
  const auto write = [&](const char* name, const char* help, auto value) {
    text.family(name, "gauge", help);
    for (const TextModel& m : models) text.sample({"model_name", "model_version"}, {m.model->name(), m.model->version()}, static_cast<double>(value(m)));
  };
  write("vllm:num_requests_running", "Generations that are computed", [](const TextModel& m) {
    int64_t sum = 0;
    for (const EngineUse& engine : m.engines) sum += running(engine);
    return sum;
  });
  write("vllm:num_requests_waiting", "Generations that wait for a worker, or in it for memory", [](const TextModel& m) {
    auto sum = static_cast<int64_t>(m.queued);
    for (const EngineUse& engine : m.engines) sum += engine.jobs - running(engine);
    return sum;
  });
}

void write_of_engines(MetricText& text, const std::vector<TextModel>& models) {
  struct Family {
    const char *name, *type, *help;
    double (*value)(const EngineUse& engine);
  };
  static constexpr Family kFamilies[] = {
      {"vllm:kv_cache_usage_perc", "gauge", "Share of the KV cache that is held; 1 = all of it", held_share},
      {"vllm:prefix_cache_queries_total", "counter", "Tokens of prompts that were looked for in the KV cache",
       [](const EngineUse& engine) { return static_cast<double>(engine.figures->prefix_queries); }},
      {"vllm:prefix_cache_hits_total", "counter", "Tokens of prompts that were found there",
       [](const EngineUse& engine) { return static_cast<double>(engine.figures->prefix_hits); }},
      {"vllm:num_preemptions_total", "counter", "Times that a generation was put back for want of memory",
       [](const EngineUse& engine) { return static_cast<double>(engine.figures->preemptions); }},
  };
  for (const Family& family : kFamilies) {
    text.family(family.name, family.type, family.help);
    for (const TextModel& m : models) {
      for (const EngineUse& engine : m.engines) {
        if (!engine.figures) continue;
        text.sample({"model_name", "model_version", "engine"}, {m.model->name(), m.model->version(), std::to_string(engine.group)}, family.value(engine));
      }
    }
  }
}

}  // namespace

void write_engine_metrics(MetricText& text, std::span<const std::shared_ptr<ServedModel>> models) {
  std::vector<TextModel> of_text;
  for (const auto& model : models) {
    if (model->spec().handler_kind == HandlerKind::kText) of_text.push_back({model.get(), model->jobs().num_waiting(), model->jobs().engines()});
  }
  write_of_models(text, of_text);
  write_of_engines(text, of_text);
}

}  // namespace penstock::frontend
