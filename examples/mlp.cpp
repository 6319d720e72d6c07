// Layers of your own, trained on 2 pipeline stages x 2 replicas: a network that learns to sort four numbers into their ranks.
// Run it as it is (four ranks as threads), or as one process a rank: torchrun --no-python --nproc-per-node 4 ./example_mlp
#include <ATen/ATen.h>

#include <cstdio>

#include "comm/run_job.h"
#include "train/pipeline_trainer.h"

using namespace penstock;
using model::Tensors;

// y = tanh(x · Wᵀ + b). kernels::linear lets zero-bubble schedules put off the weight's gradient; any other LibTorch operation works too.
class Dense : public model::Layer {
 public:
  Dense(const std::string& name, int64_t in, int64_t out)
      : name_(name), weight_(at::empty({out, in}).requires_grad_(true)), bias_(at::empty({out}).requires_grad_(true)) {}

  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override {
    return {at::tanh(kernels::linear(inputs.at(0), weight_, context.linear) + bias_)};
  }
  std::vector<model::Parameter> parameters() override {
    return {{name_ + ".weight", weight_, {{name_ + ".weight", 0, weight_.size(0)}}, 0.3, true},
            {name_ + ".bias", bias_, {{name_ + ".bias", 0, bias_.size(0)}}, 0.01, false}};
  }

 private:
  std::string name_;
  at::Tensor weight_;  // [out, in]
  at::Tensor bias_;    // [out]
};

// A layer is described first and built only on the rank that gets it.
model::LayerSpec dense(const std::string& name, int64_t in, int64_t out) {
  return {name, "Dense", out * (in + 1), [=](model::SharedWeights&) { return std::make_unique<Dense>(name, in, out); }, {}};
}

at::Tensor squared_error(const Tensors& outputs, const Tensors& targets) { return (outputs[0] - targets[0]).square().sum(); }

int main() {
  train::TrainerOptions options;
  options.mesh = {.pipe = 2, .data = 2};
  options.microbatches = 4;
  options.optimizer.weight_decay = 0;
  try {
    comm::run_job(options.mesh.size(), [&](comm::Communicator& world) {
      train::PipelineTrainer trainer(world, {dense("in", 4, 64), dense("middle", 64, 64), dense("out", 64, 4)}, options);
      for (int step = 0; step <= 300; ++step) {
        at::Generator draw = at::detail::createCPUGenerator(static_cast<uint64_t>(2 * step + trainer.replica()));
        const at::Tensor x = at::rand({64, 4}, draw);
        const at::Tensor ranks = at::argsort(at::argsort(x, int64_t{1}), int64_t{1}).to(at::kFloat) / 4;
        const auto outcome = trainer.train_batch({x}, {ranks}, squared_error, 3e-3);
        if (step % 100 == 0 && world.rank() == 0) std::printf("step %3d  mean squared error %.5f\n", step, outcome.loss);
      }
      const Tensors answer = trainer.eval_batch({at::tensor({0.3f, 0.9f, 0.1f, 0.5f}).repeat({4, 1})});
      if (!answer.empty() && trainer.replica() == 0) {
        const at::Tensor ranks = answer[0][0] * 4;
        std::printf("0.3 0.9 0.1 0.5 have the ranks %.1f %.1f %.1f %.1f\n", ranks[0].item<double>(), ranks[1].item<double>(), ranks[2].item<double>(),
                    ranks[3].item<double>());
      }
    });
  } catch (const std::exception& failed) {
    std::fprintf(stderr, "example_mlp: %s\n", failed.what());
    return 1;
  }
}
