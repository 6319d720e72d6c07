// A convolutional network on 2 pipeline stages, cut by measured time: it tells apart discs, squares and crosses that the program draws.
// Shows layers made of plain LibTorch operations, two tensors between stages, a classification loss, and evaluation between training steps.
#include <ATen/ATen.h>

#include <cstdio>

#include "comm/run_job.h"
#include "train/pipeline_trainer.h"

using namespace penstock;
using model::Tensors;

constexpr int64_t kSide = 16, kClasses = 3;

at::Tensor weight(at::IntArrayRef shape) { return at::empty(shape).requires_grad_(true); }
model::Parameter parameter(const std::string& name, const at::Tensor& value, double std) { return {name, value, {{name, 0, value.size(0)}}, std, true}; }

// 3 x 3 convolution with a skip connection around it, then a pooling by 2; passes the second tensor, the mean brightness, through.
class ConvBlock : public model::Layer {
 public:
  ConvBlock(std::string name, int64_t in, int64_t out) : name_(std::move(name)), kernel_(weight({out, in, 3, 3})), skip_(weight({out, in, 1, 1})) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext&) override {
    const at::Tensor& x = inputs[0];  // [B, C, H, W]
    const at::Tensor y = at::relu(at::conv2d(x, kernel_, {}, 1, 1)) + at::conv2d(x, skip_);
    return {at::max_pool2d(y, 2), inputs[1]};
  }
  std::vector<model::Parameter> parameters() override {
    return {parameter(name_ + ".kernel", kernel_, 0.2), parameter(name_ + ".skip", skip_, 0.2)};
  }

 private:
  std::string name_;
  at::Tensor kernel_, skip_;
};

class Classifier : public model::Layer {
 public:
  explicit Classifier(int64_t in) : weight_(weight({kClasses, in + 1})) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override {
    const at::Tensor features = at::cat({inputs[0].flatten(1), inputs[1]}, 1);  // [B, C·H·W + 1]
    return {kernels::linear(features, weight_, context.linear)};
  }
  std::vector<model::Parameter> parameters() override { return {parameter("classifier", weight_, 0.05)}; }

 private:
  at::Tensor weight_;
};

std::vector<model::LayerSpec> network() {
  const auto block = [](std::string name, int64_t in, int64_t out) -> model::LayerSpec {
    return {name, "ConvBlock", 10 * in * out, [=](model::SharedWeights&) { return std::make_unique<ConvBlock>(name, in, out); }, {}};
  };
  return {block("block0", 1, 8), block("block1", 8, 16), block("block2", 16, 16),
          {"classifier", "Classifier", kClasses * 65, [](model::SharedWeights&) { return std::make_unique<Classifier>(16 * 4); }, {}}};
}

struct Images {
  at::Tensor pixels;      // [N, 1, 16, 16]
  at::Tensor brightness;  // [N, 1]
  at::Tensor classes;     // [N] int64
};

// Shapes at random places, in noise.
Images draw(int64_t count, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  const at::Tensor classes = at::randint(0, kClasses, {count}, random, at::kLong);
  const at::Tensor centre = at::rand({count, 2, 1, 1}, random) * 6 + 5;
  const at::Tensor line = at::arange(kSide, at::kFloat);
  const at::Tensor dx = (line.view({1, 1, kSide}) - centre.select(1, 0)).abs(), dy = (line.view({1, kSide, 1}) - centre.select(1, 1)).abs();
  const at::Tensor disc = dx.square() + dy.square() < 12, square = at::maximum(dx, dy) < 3, cross = at::minimum(dx, dy) < 1;
  const at::Tensor which = classes.view({-1, 1, 1});
  const at::Tensor shape = at::where(which == 0, disc, at::where(which == 1, square, cross.logical_and(at::maximum(dx, dy) < 4)));
  const at::Tensor pixels = shape.to(at::kFloat) + 0.3 * at::randn({count, kSide, kSide}, random);
  return {pixels.unsqueeze(1), pixels.mean({1, 2}).unsqueeze(1), classes};
}

at::Tensor loss(const Tensors& outputs, const Tensors& targets) { return at::cross_entropy_loss(outputs[0], targets[0], {}, at::Reduction::Sum); }

int main() {
  train::TrainerOptions options;
  options.mesh = {.pipe = 2};
  options.schedule = "zb-h1";
  options.partition = "profiled";
  options.microbatches = 4;
  const Images sample = draw(32, 0);
  options.sample = pipeline::ProfileRequest{{{sample.pixels, sample.brightness}, {sample.classes}}, loss};
  try {
    comm::run_job(options.mesh.size(), [&](comm::Communicator& world) {
      train::PipelineTrainer trainer(world, network(), options);
      if (world.rank() == 0) std::printf("stages hold the layers 0-%d and %d-3\n", trainer.boundaries()[1] - 1, trainer.boundaries()[1]);
      const Images test = draw(500, 1);
      for (int step = 1; step <= 120; ++step) {
        const Images batch = draw(128, 100 + static_cast<uint64_t>(step));
        const auto outcome = trainer.train_batch({batch.pixels, batch.brightness}, {batch.classes}, loss, 3e-3);
        if (step % 40 != 0) continue;
        const Tensors logits = trainer.eval_batch({test.pixels, test.brightness});  // on the last stage
        if (logits.empty()) continue;
        const double right = (logits[0].argmax(1) == test.classes).to(at::kFloat).mean().item<double>();
        std::printf("step %3d  loss %.3f  %.1f %% of 500 unseen images right\n", step, outcome.loss, 100 * right);
      }
    });
  } catch (const std::exception& failed) {
    std::fprintf(stderr, "example_cnn: %s\n", failed.what());
    return 1;
  }
}
