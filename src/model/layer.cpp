#include "model/layer.h"

#include <ATen/CPUGeneratorImpl.h>

#include "model/whole_parameter.h"

namespace penstock::model {
namespace {

// FNV-1a: the same on every machine, unlike std::hash.
uint64_t hash(const std::string& text) {
  uint64_t h = 14695981039346656037ull;
  for (const unsigned char c : text) h = (h ^ c) * 1099511628211ull;
  return h;
}

}  // namespace

void initialize(Parameter& parameter, uint64_t seed) {
  at::NoGradGuard no_grad;
  if (parameter.init_std == 0) {
    parameter.value.fill_(parameter.init_constant);
    return;
  }
  const auto generator = at::detail::createCPUGenerator(hash(parameter.name) ^ (seed * 0x9E3779B97F4A7C15ull));
  if (!parameter.is_cut()) {
    parameter.value.copy_(at::empty(parameter.value.sizes(), at::kFloat).normal_(0, parameter.init_std, generator));
    return;
  }
  const WholeParameter whole(parameter);
  const at::Tensor noise = at::empty(whole.shape(), at::kFloat).normal_(0, parameter.init_std, generator);
  for (size_t i = 0; i < parameter.stored.size(); ++i) whole.own(i, parameter.value).copy_(whole.part(i, noise));
}

}  // namespace penstock::model
