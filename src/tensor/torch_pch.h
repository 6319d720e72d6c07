#pragma once
// The shared precompiled header of every folder that uses LibTorch. torch/torch.h (13 s a file) stays out.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
