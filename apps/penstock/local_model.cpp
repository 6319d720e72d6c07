#include "local_model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include "base/channel.h"
#include "base/log.h"
#include "base/progress_line.h"
#include "base/temp_dir.h"
#include "cluster/executable_path.h"
#include "frontend/archive.h"
#include "frontend/model_archives.h"
#include "frontend/model_registry.h"
#include "frontend/model_store.h"
#include "rpc/grpc_server.h"
#include "rpc/grpc_worker_client.h"
#include "worker_program.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

constexpr milliseconds kLookUp{50};           // how often `wanted` is asked
constexpr seconds kLoadTime{24 * 3600};       // the user sees it load, and may end it
constexpr seconds kSilence{3600};             // a long prompt on a slow machine
constexpr seconds kStopTime{5};
constexpr size_t kEventsWaiting = size_t{1} << 20;

// One event of an answer, or its end.
struct Event {
  std::string text;
  bool has_token = false;
  std::optional<frontend::FinishedInfo> finished;
  bool done = false;
  std::optional<Error> failure;
};

class Observer final : public frontend::RequestObserver {
 public:
  bool on_event(const frontend::WorkerEvent& event) override { return put({event.bytes, event.token_id >= 0, event.finished, false, {}}); }
  void on_done(const std::optional<Error>& failure) override { (void)put({"", false, {}, true, failure}); }
  [[nodiscard]] std::optional<Event> take(Deadline deadline) { return events_.take(deadline); }

 private:
  bool put(Event event) { return events_.try_put(std::move(event)) == Put::kDone; }
  Channel<Event> events_{kEventsWaiting};
};

int threads_of(const LocalModelOptions& options) {
  if (options.threads > 0) return options.threads;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / (options.stages * options.tensor_ranks));
}

frontend::ModelFolder find_model(const std::string& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) throw error(Code::kNotFound, "{}: there is no such file or folder; expected a Hugging Face directory or a GGUF file", path);
  return frontend::resolve_model(std::nullopt, "model=" + path).value();
}

// In place of what the model's configuration says.
void choose_device(const std::string& device, config::ModelConfig& model) {
  if (device == "cpu") {
    model.handler.device = config::HandlerDevice::kCpu;
    model.device_type = config::DeviceType::kCpu;
    model.device_ids.clear();
  } else if (device == "cuda") {
    model.handler.device = config::HandlerDevice::kCuda;
    if (model.device_type == config::DeviceType::kCpu) model.device_type = config::DeviceType::kAuto;
  }
}

frontend::ModelSpec spec_of(const frontend::ModelFolder& folder, const LocalModelOptions& options) {
  frontend::ModelSpec spec = frontend::read_model_spec(folder, {}).value();
  if (spec.handler_kind != frontend::HandlerKind::kText) {
    throw error(Code::kInvalidArgument, "{}: its handler is '{}'; expected a model that makes text", options.model, spec.handler.substr(0, 200));
  }
  spec.config.parallel_type = config::ParallelType::kBoth;
  spec.config.parallel_level = options.stages * options.tensor_ranks;
  spec.config.handler.tensor_ranks = options.tensor_ranks;
  spec.config.torchrun = {.omp_num_threads = threads_of(options)};
  spec.config.handler.max_concurrent = 1;
  choose_device(options.device, spec.config);
  spec.config.startup_timeout = kLoadTime;
  spec.config.response_timeout = kSilence;
  return spec;
}

}  // namespace

class LocalModel::Impl {
 public:
  explicit Impl(const LocalModelOptions& options)
      : devices_(cluster::visible_devices()),
        cores_(cluster::core_names()),
        registry_({config_, devices_, cores_, {worker_program(), cluster::executable_folder() / "penstock-handler"}, {}, files_.path() / "logs", files_.path(),
                   [](const frontend::ModelSpec&, size_t, const fs::path& socket) { return rpc::make_grpc_worker_client(socket); }, [](const std::string&) {}}),
        model_(registry_.add(spec_of(archives_.open(find_model(options.model)).value(), options), frontend::WorkerRange{1, 1}).value()),
        path_(options.model) {}

  ~Impl() { model_->stop(Deadline::after(kStopTime)); }

  void load(const std::function<bool()>& wanted) {
    model_->start();
    const fs::path& path = model_->spec().config.handler.model_path;
    tokenizer_.emplace(text::Tokenizer::load(path).value());
    chat_template_.emplace(text::ChatTemplate::load(path));
    ProgressLine line(std::cerr, ProgressLine::for_stderr());
    frontend::LoadOutcome outcome;
    while ((outcome = model_->wait_loaded(Deadline::after(kLookUp))).state == frontend::LoadState::kLoading) {
      if (!wanted()) throw error(Code::kCancelled, "stopped while {} was loading", path_);
      line.update(loaded_share(), "loading " + path_);
    }
    if (outcome.failure) throw *outcome.failure;
    line.update(1, "loaded " + path_);
    line.finish();
  }

  Result<AnswerSummary> answer(text::GenerationRequest request, const std::function<bool()>& wanted, const std::function<void(std::string_view)>& on_text) {
    const auto observer = std::make_shared<Observer>();
    const auto begin = Clock::now();
    auto job = model_->jobs().submit(std::move(request), {}, observer);
    if (!job) return job.error();
    AnswerSummary summary;
    bool cancelled = false;
    for (;;) {
      if (!cancelled && !wanted()) {
        cancelled = true;
        model_->jobs().cancel(**job);
      }
      const auto event = observer->take(Deadline::after(kLookUp));
      if (!event) continue;
      if (event->has_token && !summary.first_token) summary.first_token = Clock::now() - begin;
      if (event->has_token) ++summary.tokens;
      if (event->finished) summary.reason = event->finished->reason;
      if (!event->text.empty() && !cancelled) on_text(event->text);
      if (!event->done) continue;
      summary.total = Clock::now() - begin;
      if (cancelled) summary.reason = "Ctrl-C";
      else if (event->failure) return *event->failure;
      return summary;
    }
  }

  [[nodiscard]] const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  [[nodiscard]] const Result<text::ChatTemplate>& chat_template() const { return *chat_template_; }

 private:
  // What the worker's first rank says beside its socket, 0 ... 1; 0 before and after.
  [[nodiscard]] double loaded_share() const {
    std::error_code failed;
    for (auto entry = fs::recursive_directory_iterator(files_.path(), failed); !failed && entry != fs::recursive_directory_iterator(); entry.increment(failed)) {
      if (entry->path().extension() != ".loading") continue;
      int percent = 0;
      std::ifstream(entry->path()) >> percent;
      return percent / 100.0;
    }
    return 0;
  }

  const config::ServerConfig config_;
  const TempDir files_;  // 0700: only this user reaches the worker
  frontend::ModelArchives archives_;
  cluster::DeviceAssignment devices_, cores_;
  frontend::ModelRegistry registry_;
  const std::shared_ptr<frontend::ServedModel> model_;
  const std::string path_;
  std::optional<text::Tokenizer> tokenizer_;
  std::optional<Result<text::ChatTemplate>> chat_template_;
};

LocalModel::LocalModel(const LocalModelOptions& options, const std::function<bool()>& wanted) : impl_(std::make_unique<Impl>(options)) { impl_->load(wanted); }
LocalModel::~LocalModel() = default;

const text::Tokenizer& LocalModel::tokenizer() const { return impl_->tokenizer(); }
const Result<text::ChatTemplate>& LocalModel::chat_template() const { return impl_->chat_template(); }

Result<AnswerSummary> LocalModel::answer(text::GenerationRequest request, const std::function<bool()>& wanted, const std::function<void(std::string_view)>& on_text) {
  return impl_->answer(std::move(request), wanted, on_text);
}

}  // namespace penstock
