#include "train/timeline.h"

#include "base/error.h"

namespace penstock::train {
namespace {

enum Row : int { kCompute = 0, kMessages = 1, kReductions = 2 };
enum Tag : int { kSizeTag = 11, kBytesTag = 12 };
constexpr int64_t kMaxTextBytes = int64_t{1} << 30;  // of one rank's steps

const char* category(plan::ActionKind kind) {
  switch (kind) {
    case plan::ActionKind::kForward: return "forward";
    case plan::ActionKind::kBackward: return "backward";
    case plan::ActionKind::kInputGrad: return "input gradient";
    case plan::ActionKind::kWeightGrad: return "weight gradient";
    case plan::ActionKind::kSendForward:
    case plan::ActionKind::kSendBackward: return "send";
    case plan::ActionKind::kRecvForward:
    case plan::ActionKind::kRecvBackward: return "receive";
  }
  return "";
}

void send_text(comm::Communicator& world, const std::string& text, Deadline deadline) {
  at::Tensor size = at::empty({1}, at::kLong);
  *size.data_ptr<int64_t>() = static_cast<int64_t>(text.size());
  world.send(size, 0, kSizeTag)->wait(deadline);
  at::Tensor bytes = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  std::copy(text.begin(), text.end(), bytes.data_ptr<uint8_t>());
  world.send(bytes, 0, kBytesTag)->wait(deadline);
}

std::string recv_text(comm::Communicator& world, int from, Deadline deadline) {
  at::Tensor size = at::empty({1}, at::kLong);
  world.recv(size, from, kSizeTag)->wait(deadline);
  const int64_t count = *size.data_ptr<int64_t>();
  if (count < 0 || count > kMaxTextBytes) throw error(Code::kInternal, "rank {} announces a timeline of {} bytes, expected at most {}", from, count, kMaxTextBytes);
  at::Tensor bytes = at::empty({count}, at::kByte);
  world.recv(bytes, from, kBytesTag)->wait(deadline);
  return {bytes.data_ptr<uint8_t>(), bytes.data_ptr<uint8_t>() + bytes.numel()};
}

}  // namespace

Timeline::Timeline(const plan::Topology& mesh, const plan::Schedule& schedule, int rank) : rank_(rank) {
  const plan::Coordinates at = mesh.coordinates(rank);
  const auto stages = schedule.stages_of(at.pipe);
  trace_.name_process(rank, fmt::format("rank {} (stage{} {}, replica {})", rank, stages.size() > 1 ? "s" : "", fmt::join(stages, " and "), at.data));
  trace_.name_thread(rank, kCompute, "compute");
  trace_.name_thread(rank, kMessages, "send and receive");
  trace_.name_thread(rank, kReductions, "gradient reduction");
}

void Timeline::add_step(int64_t step, const std::vector<pipeline::ActionRecord>& actions, const std::vector<ReductionRecord>& reductions) {
  for (const auto& r : actions) {
    trace_.add({plan::to_string(r.action), category(r.action.kind), rank_, plan::is_compute(r.action.kind) ? kCompute : kMessages, r.start_us,
                r.end_us - r.start_us, {{"step", step}, {"stage", int64_t{r.action.stage}}, {"microbatch", int64_t{r.action.microbatch}}}});
  }
  for (const auto& r : reductions) {
    trace_.add({fmt::format("reduce bucket {}", r.bucket), "reduction", rank_, kReductions, r.start_us, r.end_us - r.start_us,
                {{"step", step}, {"bytes", r.bytes}}});
  }
}

void Timeline::add_span(const std::string& name, int64_t start_us, int64_t end_us) {
  trace_.add({name, "step", rank_, kCompute, start_us, end_us - start_us, {}});
}

std::string Timeline::gather(comm::Communicator& world, Deadline deadline) {
  if (rank_ != 0) {
    send_text(world, trace_.to_json(), deadline);
    return {};
  }
  for (int from = 1; from < world.size(); ++from) trace_.append(ChromeTrace::parse(recv_text(world, from, deadline)).value());
  trace_.start_at_zero();
  return trace_.to_json();
}

}  // namespace penstock::train
