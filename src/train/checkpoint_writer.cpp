#include "train/checkpoint_writer.h"

#include <sys/resource.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/crc32.h"
#include "base/error.h"
#include "base/file.h"
#include "base/filesystem_error.h"
#include "base/replace_folder.h"
#include "comm/recorded_communicator.h"
#include "model/parameter_io.h"
#include "train/rounding_errors.h"
#include "train/whole_over_ranks.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kNice = 10;  // of the writing thread: steps go first
constexpr milliseconds kPoll{20};
constexpr size_t kMaxNoteBytes = 64 << 20;

std::string file_of(int pipe_rank, int replica) {
  return replica == 0 ? fmt::format("stage-{:05d}.safetensors", pipe_rank) : fmt::format("stage-{:05d}-replica-{:05d}.safetensors", pipe_rank, replica);
}
fs::path note_of(const fs::path& file) { return fs::path(file) += ".json"; }

// Which replica writes each parameter: the one that has least to write so far.
std::vector<int> writers_of(const std::vector<model::Parameter>& parameters, int replicas) {
  std::vector<int64_t> load(static_cast<size_t>(replicas));
  std::vector<int> writers;
  for (const model::Parameter& p : parameters) {
    const auto least = std::ranges::min_element(load);
    *least += whole_elements(p);
    writers.push_back(static_cast<int>(least - load.begin()));
  }
  return writers;
}

// Copies, as the next step changes the originals. What is sharded comes from all replicas, what is cut from all ranks that share it.
std::vector<weights::NamedTensor> copies_of(const TrainState& state, const CheckpointPlace& place, Deadline deadline) {
  std::vector<weights::NamedTensor> tensors;
  const std::vector<int> writers = writers_of(*state.parameters, place.replicas);
  for (size_t i = 0; i < state.parameters->size(); ++i) {
    const model::Parameter& p = (*state.parameters)[i];
    const at::Tensor value = state.shards->whole_value(i, deadline);
    const auto moments = state.optimizer->moments(i, deadline);
    if (writers[i] != place.replica) continue;
    const auto add = [&](const at::Tensor& own, const char* ending) {
      const model::Parameter whole = whole_over_ranks(p, own, state.tensor, deadline);
      if (!place.writes) return;
      for (auto& [name, part] : model::stored_parts(whole, host_copy(whole.value))) tensors.emplace_back(name + ending, part);
    };
    add(value, "");
    for (size_t k = 0; k < moments.size(); ++k) add(moments[k], state.optimizer->moment_names()[k]);
  }
  if (state.trainer == nullptr) return tensors;
  for (auto& remembered : rounding_errors(*state.trainer, state.tensor, place.writes, deadline)) tensors.push_back(std::move(remembered));
  return tensors;
}

}  // namespace

CheckpointWriter::~CheckpointWriter() {
  give_up_ = true;
  if (thread_.joinable()) thread_.join();
}

void CheckpointWriter::start(comm::Communicator& world, const TrainState& state, const std::string& config_yaml, std::optional<double> validation_loss,
                             Deadline deadline) {
  finish();
  const FlightScope scope(comm::recorder_of(world), {.name = "checkpoint copy"});
  Job job;
  job.recorder = comm::recorder_of(world);
  job.target = formats::checkpoint_path(options_.place.folder, state.position.step);
  job.unfinished = formats::unfinished_path(job.target);
  if (world.rank() == 0) {
    fs::remove_all(job.unfinished);
    fs::create_directories(job.unfinished);
    job.manifest.emplace();
    job.manifest->step = state.position.step;
    job.manifest->elapsed_seconds = state.position.elapsed_seconds;
    job.manifest->tokens = state.position.tokens;
    job.manifest->skipped_steps = state.guard.skipped;
    job.manifest->skipped_in_a_row = state.guard.in_a_row;
    job.manifest->loss_scale = state.scaler.scale;
    job.manifest->loss_scale_good_steps = state.scaler.good_steps;
    job.manifest->overflowed_steps = state.scaler.overflows;
    job.manifest->recent_losses = state.guard.losses;
    job.manifest->config = config_yaml;
    job.manifest->validation_loss = validation_loss;
  }
  world.barrier()->wait(deadline);
  job.tensors = copies_of(state, options_.place, deadline);
  thread_ = std::thread([this, job = std::move(job)]() mutable { run(std::move(job)); });
}

std::optional<int64_t> CheckpointWriter::poll() {
  rethrow();
  MutexLock lock(mutex_);
  return std::exchange(completed_, std::nullopt);
}

void CheckpointWriter::finish() {
  if (thread_.joinable()) thread_.join();
  rethrow();
}

void CheckpointWriter::rethrow() {
  MutexLock lock(mutex_);
  if (failed_) throw *failed_;
}

void CheckpointWriter::run(Job job) noexcept {
  ::setpriority(PRIO_PROCESS, 0, kNice);  // on Linux of this thread alone
  try {
    const FlightScope scope(job.recorder, {.kind = FlightEntry::Kind::kBackground, .name = "checkpoint write"});
    if (options_.place.writes) write_own_file(job);
    job.tensors.clear();
    if (job.manifest) complete(job);
  } catch (const Error& e) {
    MutexLock lock(mutex_);
    failed_ = error(e.code(), "checkpoint of {}: {}", job.target.filename().string(), e.message());
  } catch (const fs::filesystem_error& e) {
    MutexLock lock(mutex_);
    failed_ = error(Code::kDataLoss, "checkpoint of {}: {}", job.target.filename().string(), error_of(e).message());
  } catch (const std::exception& e) {
    MutexLock lock(mutex_);
    failed_ = error(Code::kDataLoss, "checkpoint of {}: {}", job.target.filename().string(), e.what());
  }
}

void CheckpointWriter::write_own_file(const Job& job) const {
  const fs::path file = job.unfinished / file_of(options_.place.pipe_rank, options_.place.replica);
  json checksums = json::object();
  for (const auto& [name, tensor] : job.tensors) {
    const at::Tensor bytes = tensor.contiguous();
    checksums[name] = crc32({static_cast<const std::byte*>(bytes.data_ptr()), bytes.nbytes()});
  }
  weights::write_safetensors(file, job.tensors);
  write_file_atomic(note_of(file), checksums.dump());
}

// Rank 0, when every rank has left its note.
void CheckpointWriter::complete(Job& job) {
  const Deadline deadline = Deadline::after(options_.timeout);
  for (int rank = 0; rank < options_.place.pipe_ranks * options_.place.replicas; ++rank) {
    const int pipe_rank = rank / options_.place.replicas, replica = rank % options_.place.replicas;
    const fs::path file = job.unfinished / file_of(pipe_rank, replica);
    while (!fs::exists(note_of(file))) {
      if (give_up_) throw error(Code::kCancelled, "given up");
      if (deadline.passed()) throw error(Code::kDeadlineExceeded, "pipe rank {} of replica {} has not written {} after {} s; do all ranks see this folder?", pipe_rank, replica, file.string(), options_.timeout.count());
      std::this_thread::sleep_for(kPoll);
    }
    job.manifest->files[file.filename()] = {fs::file_size(file), json::parse(read_file(note_of(file), kMaxNoteBytes).value()).get<std::map<std::string, uint32_t>>()};
    fs::remove(note_of(file));
  }
  fs::create_directories(job.unfinished / formats::kModelDescription);
  if (options_.describe_model) options_.describe_model(job.unfinished / formats::kModelDescription);
  job.manifest->description = formats::description_checksums(job.unfinished);
  write_file_atomic(job.unfinished / "manifest.json", formats::to_json(*job.manifest));
  replace_folder(job.unfinished, job.target);  // a run that was resumed before this step writes it again
  formats::remove_old_checkpoints(options_.place.folder, options_.keep, options_.keep_best);
  MutexLock lock(mutex_);
  completed_ = job.manifest->step;
}

}  // namespace penstock::train
