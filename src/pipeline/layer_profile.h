#pragma once
// What each layer costs on this machine, measured: the weights of the `profiled` partition.
#include <cstdint>
#include <span>
#include <vector>

#include "pipeline/executor.h"

namespace penstock::pipeline {

struct LayerProfile {
  double forward_us = 0;         // of one micro-batch; the shortest of the repeats
  double backward_us = 0;        // both gradients
  int64_t activation_bytes = 0;  // kept between forward and backward, the layer's output included
  int64_t output_bytes = 0;      // what travels to the next layer
  int64_t parameter_bytes = 0;
};

struct ProfileRequest {
  Microbatch sample;      // of the usual shape
  LossFunction loss;      // may be empty; else it counts with the last layer
  kernels::Compute compute = kernels::Compute::kFp32;
  uint64_t seed = 1;      // of the weights
  int repeats = 3;        // after one that warms up
  at::Device device = at::kCPU;
};

// Builds, runs and drops the layers one after the other: memory holds one layer, and the activations between two.
// Threads: the caller's and LibTorch's. Takes about 4 x the time of one micro-batch through the whole model.
[[nodiscard]] std::vector<LayerProfile> profile_layers(std::span<const model::LayerSpec> layers, const ProfileRequest& request);

}  // namespace penstock::pipeline
