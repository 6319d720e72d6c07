#pragma once
// How likely a model found a token.
#include <cstdint>
#include <string>

namespace penstock::text {

struct TokenLogprob {
  int32_t id = 0;
  double logprob = 0;  // natural logarithm
  std::string bytes;   // that it spells, which need not be whole characters; special tokens as the files write them
};

}  // namespace penstock::text
