// How long texts that stream wait for their tokens while a long prompt is read: a whole engine with random weights, in one process.
//
//   prompt_stall                4 streams, a prompt of 2,000 tokens in their middle
//   prompt_stall --stages 2     the same over two stages
#include <CLI/CLI.hpp>

#include <algorithm>

#include "base/file.h"
#include "base/mutex.h"
#include "base/temp_dir.h"
#include "comm/spawn_ranks.h"
#include "engine/pipeline_engine.h"
#include "engine/stage_loop.h"
#include "model/families.h"
#include "model/parameter_io.h"
#include "weights/hf_writer.h"

namespace penstock {
namespace {

struct Options {
  int streams = 4;
  int prompt = 2000;
  int hidden = 512;
  int layers = 8;
  int stages = 1;
  int tokens = 400;  // of each stream
};

// When each token of a text came.
class Watch : public engine::EventSink {
 public:
  bool push(engine::GenerationEvent event) override {
    MutexLock lock(mutex_);
    if (event.token_id >= 0) times_.push_back(Clock::now());
    ended_ = ended_ || event.finished;
    changed_.notify_all();
    return true;
  }
  void wait_tokens(size_t count) {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(seconds(300));
    while (times_.size() < count && !ended_) {
      if (!changed_.wait(mutex_, deadline)) throw error(Code::kDeadlineExceeded, "no {} tokens within five minutes", count);
    }
  }
  std::vector<Clock::time_point> times() {
    MutexLock lock(mutex_);
    return times_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<Clock::time_point> times_ GUARDED_BY(mutex_);
  bool ended_ GUARDED_BY(mutex_) = false;
};

void write_model(const Options& options, const std::filesystem::path& folder) {
  model::TransformerConfig config;
  config.vocab_size = 257;
  config.hidden_size = options.hidden;
  config.num_layers = options.layers;
  config.num_heads = options.hidden / 64;
  config.num_kv_heads = std::max<int64_t>(1, config.num_heads / 2);
  config.head_size = 64;
  config.intermediate_size = 3 * options.hidden;
  config.max_position_embeddings = options.prompt + options.tokens + 200;
  const auto specs = model::transformer_layers(config);
  const std::vector<int> all{0, static_cast<int>(specs.size())};
  pipeline::Stage whole(specs, all, 0);
  std::vector<weights::NamedTensor> tensors;
  for (auto& p : whole.parameters()) {
    model::initialize(p, 1);
    for (auto& part : model::stored_parts(p, p.value)) tensors.push_back(part);
  }
  weights::write_hf_weights(folder, tensors, 1 << 30);
  write_file_atomic(folder / "config.json", model::to_config_json(config));
}

text::GenerationRequest request(int prompt_tokens, int tokens, int seed) {
  text::GenerationRequest r;
  for (int i = 0; i < prompt_tokens; ++i) r.prompt_ids.push_back((i * 7 + seed) % 256);
  r.sampling.max_tokens = tokens;
  r.sampling.seed = static_cast<uint64_t>(seed);
  r.sampling.ignore_eos = true;
  return r;
}

void print(const char* what, std::vector<double> gaps) {
  if (gaps.empty()) return;
  std::ranges::sort(gaps);
  const auto at = [&](double share) { return gaps[static_cast<size_t>(share * static_cast<double>(gaps.size() - 1))]; };
  fmt::print("{:<34} {:5} gaps: p50 {:.2f} ms, p90 {:.2f}, p99 {:.2f}, longest {:.2f}; p99 / p50 {:.2f}\n", what, gaps.size(), at(0.5), at(0.9), at(0.99), gaps.back(),
             at(0.99) / at(0.5));
}

void measure(const Options& options, engine::PipelineEngine& engine) {
  std::vector<std::shared_ptr<Watch>> streams;
  for (int i = 0; i < options.streams; ++i) {
    streams.push_back(std::make_shared<Watch>());
    (void)engine.submit(request(20, options.tokens, i), streams.back()).value();
  }
  const auto prompt = std::make_shared<Watch>(), warm_up = std::make_shared<Watch>();
  streams[0]->wait_tokens(static_cast<size_t>(options.tokens) / 8);
  (void)engine.submit(request(200, 2, 100), warm_up).value();  // it learns what rows cost
  streams[0]->wait_tokens(static_cast<size_t>(options.tokens) / 4);
  const auto begin = Clock::now();
  (void)engine.submit(request(options.prompt, 2, 200), prompt).value();
  prompt->wait_tokens(1);
  const auto end = Clock::now();
  for (auto& stream : streams) stream->wait_tokens(static_cast<size_t>(options.tokens));
  std::vector<double> before, meanwhile, all;
  for (auto& stream : streams) {
    const auto times = stream->times();
    for (size_t i = 1; i < times.size(); ++i) {
      const double gap = 1e3 * to_seconds(times[i] - times[i - 1]);
      all.push_back(gap);
      if (times[i] < begin) before.push_back(gap);
      else if (times[i - 1] < end) meanwhile.push_back(gap);
    }
  }
  fmt::print("{} streams, {} stage(s); the first token of a prompt of {} tokens came after {:.0f} ms\n", options.streams, options.stages, options.prompt,
             1e3 * to_seconds(end - begin));
  print("before the prompt", before);
  print("while it is read", meanwhile);
  print("all", all);
}

void run(const Options& options) {
  const TempDir folder;
  write_model(options, folder.path());
  comm::spawn_ranks(options.stages, [&](comm::Communicator& ranks) {
    engine::StageOptions stage;
    stage.model = folder.path();
    stage.stage = ranks.rank();
    stage.num_stages = options.stages;
    engine::StageRunner runner(stage);
    if (ranks.rank() > 0) return engine::run_stage(runner, ranks, stage.max_sequences, seconds(60));
    engine::PipelineEngine engine(runner, ranks, text::byte_tokenizer(), {});
    measure(options, engine);
  });
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  penstock::Options options;
  CLI::App app{"How long texts that stream wait for their tokens while a long prompt is read"};
  app.add_option("--streams", options.streams, "texts that stream")->check(CLI::Range(1, 7))->capture_default_str();
  app.add_option("--prompt", options.prompt, "tokens of the long prompt")->check(CLI::Range(1, 100000))->capture_default_str();
  app.add_option("--tokens", options.tokens, "tokens of each stream")->check(CLI::Range(16, 100000))->capture_default_str();
  app.add_option("--hidden", options.hidden, "width of the model, a multiple of 64")->check(CLI::Range(64, 8192))->capture_default_str();
  app.add_option("--layers", options.layers, "its layers")->check(CLI::Range(1, 200))->capture_default_str();
  app.add_option("--stages", options.stages, "its stages, each a thread")->check(CLI::Range(1, 8))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  penstock::run(options);
  return 0;
}
