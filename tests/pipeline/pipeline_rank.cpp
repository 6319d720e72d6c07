// One rank of a pipeline, for pipeline_processes_test.cpp:
//   pipeline_rank SCHEDULE RANKS MICROBATCHES [VICTIM WHERE]
// Trains five steps and prints their losses, exactly; with VICTIM, that rank kills itself in the second step at micro-batch 2 of its last stage:
// WHERE is F, B, I, W (inside that computation), SEND_F, RECV_F, SEND_B or RECV_B (at the call), or throw (its layer throws instead).
#include <ATen/ATen.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "comm/run_job.h"
#include "train/pipeline_trainer.h"

using namespace penstock;
using model::Tensors;

namespace {

constexpr int kWidth = 8, kLayers = 8, kStep = 2, kMicrobatch = 2;

struct Plan {
  std::string where;   // empty: nobody dies
  bool here = false;   // this rank is the victim
  int step = 0;
};
Plan plan_of_this_rank;

void die_if(const char* where) {
  if (!plan_of_this_rank.here || plan_of_this_rank.step != kStep || plan_of_this_rank.where != where) return;
  std::fflush(stdout);
  ::kill(::getpid(), SIGKILL);
}

// The micro-batch rides in the last column of the activation's first row.
bool is_marked(const at::Tensor& x) { return x[0][kWidth - 1].item<float>() == 2.0f; }

// Passes x on, and dies in the backward pass of the marked micro-batch.
struct DiesInBackward : torch::autograd::Function<DiesInBackward> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, bool marked, const at::Tensor& leaf, kernels::WeightGradQueue* queue) {
    ctx->saved_data["marked"] = marked;
    ctx->saved_data["leaf"] = leaf;
    ctx->saved_data["queue"] = reinterpret_cast<int64_t>(queue);
    return x.clone();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, const torch::autograd::variable_list& grads) {
    if (ctx->saved_data["marked"].toBool()) {
      die_if("B");
      die_if("I");
      auto* queue = reinterpret_cast<kernels::WeightGradQueue*>(ctx->saved_data["queue"].toInt());
      if (queue != nullptr) queue->push(ctx->saved_data["leaf"].toTensor(), [](at::Tensor&) { die_if("W"); });
    }
    return {grads[0], at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

class Dense : public model::Layer {
 public:
  explicit Dense(int index) : name_(fmt::format("w{}", index)), weight_(at::empty({kWidth, kWidth}).requires_grad_(true)) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override {
    const bool marked = is_marked(inputs[0]);
    if (marked) {
      die_if("F");
      if (plan_of_this_rank.here && plan_of_this_rank.step == kStep && plan_of_this_rank.where == "throw") throw std::runtime_error("the layer is out of order");
    }
    const at::Tensor x = inputs[0].requires_grad() ? DiesInBackward::apply(inputs[0], marked, weight_.detach().requires_grad_(true), context.linear.weight_grads) : inputs[0];
    at::Tensor y = at::tanh(kernels::linear(x, weight_, context.linear));
    y = at::cat({y.narrow(1, 0, kWidth - 1), inputs[0].narrow(1, kWidth - 1, 1)}, 1);
    return {y};
  }
  std::vector<model::Parameter> parameters() override { return {{name_, weight_, {{name_, 0, kWidth}}, 0.4, true}}; }

 private:
  std::string name_;
  at::Tensor weight_;
};

// Every group of the world, watched: dies at the third activation or gradient that is sent or received in the chosen step.
class Watched : public comm::Communicator {
 public:
  explicit Watched(std::unique_ptr<Communicator> owned) : owned_(std::move(owned)), inner_(*owned_) {}
  explicit Watched(Communicator& inner) : inner_(inner) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const std::string& name() const override { return inner_.name(); }
  comm::WorkPtr send(const at::Tensor& tensor, int to, int tag) override {
    note(tensor, to > rank() ? "SEND_F" : "SEND_B");
    return inner_.send(tensor, to, tag);
  }
  comm::WorkPtr recv(at::Tensor& tensor, int from, int tag) override {
    note(tensor, from < rank() ? "RECV_F" : "RECV_B");
    return inner_.recv(tensor, from, tag);
  }
  comm::WorkPtr all_reduce(at::Tensor& tensor, comm::Reduce op) override { return inner_.all_reduce(tensor, op); }
  comm::WorkPtr broadcast(at::Tensor& tensor, int root) override { return inner_.broadcast(tensor, root); }
  comm::WorkPtr reduce_scatter(at::Tensor& flat, std::span<const int64_t> offsets) override { return inner_.reduce_scatter(flat, offsets); }
  comm::WorkPtr all_gather(at::Tensor& flat, std::span<const int64_t> offsets) override { return inner_.all_gather(flat, offsets); }
  comm::WorkPtr all_reduce_rounded(at::Tensor& tensor, at::Tensor& residual) override { return inner_.all_reduce_rounded(tensor, residual); }
  comm::WorkPtr barrier() override { return inner_.barrier(); }
  std::unique_ptr<Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    auto group = inner_.split(ranks, name, deadline);
    return group ? std::make_unique<Watched>(std::move(group)) : nullptr;
  }

 private:
  void note(const at::Tensor& tensor, const char* what) {
    if (plan_of_this_rank.step != kStep || plan_of_this_rank.where != what || tensor.scalar_type() != at::kFloat) return;
    if (++count_ > kMicrobatch) die_if(what);
  }
  std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
  int count_ = 0;
};

at::Tensor squared_error(const Tensors& outputs, const Tensors& targets) { return (outputs[0] - targets[0]).square().sum(); }

void run_steps(comm::Communicator& plain, const train::TrainerOptions& options) {
  at::set_num_threads(1);
  Watched world(plain);
  std::vector<model::LayerSpec> layers;
  for (int i = 0; i < kLayers; ++i) layers.push_back({fmt::format("dense{}", i), "Dense", kWidth * kWidth, [i](model::SharedWeights&) { return std::make_unique<Dense>(i); }, {}});
  train::PipelineTrainer trainer(world, layers, options);
  const int rows = 2 * options.microbatches;
  for (plan_of_this_rank.step = 1; plan_of_this_rank.step <= 5; ++plan_of_this_rank.step) {
    at::Generator random = at::detail::createCPUGenerator(static_cast<uint64_t>(plan_of_this_rank.step));
    at::Tensor x = at::randn({rows, kWidth}, random);
    const at::Tensor y = x.abs();
    for (int row = 0; row < rows; ++row) x[row][kWidth - 1] = row / 2;
    const auto outcome = trainer.train_batch({x}, {y}, squared_error, 1e-2);
    std::printf("step %d loss %.17g\n", plan_of_this_rank.step, outcome.loss);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  train::TrainerOptions options;
  options.schedule = argv[1];
  options.mesh.pipe = std::atoi(argv[2]);
  options.microbatches = std::atoi(argv[3]);
  options.timeout = seconds(30);
  try {
    comm::run_job(options.mesh.pipe, [&](comm::Communicator& world) {
      if (argc > 5) plan_of_this_rank = {argv[5], world.rank() == std::atoi(argv[4]), 0};
      run_steps(world, options);
    });
    return 0;
  } catch (const std::exception& failed) {
    std::printf("FAILED %s\n", failed.what());
    return 1;
  }
}
