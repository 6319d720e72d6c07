#pragma once
// What a client asks for, parsed and checked.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::text {

struct SamplingParams {
  int max_tokens = 256;            // >= 1
  double temperature = 1.0;        // 0 ... 2; 0 = greedy
  int top_k = 0;                   // >= 0; 0 = off
  double top_p = 1.0;              // (0, 1]; 1 = off
  std::optional<uint64_t> seed;    // absent = a fresh one for each request
  std::vector<std::string> stop;   // at most 16, each 1 ... 256 bytes; not part of the output
  bool ignore_eos = false;         // the token that ends a text does not; for measurements
};

struct GenerationRequest {
  std::string prompt;              // UTF-8, not empty unless there are ids
  std::vector<int32_t> prompt_ids = {};  // in place of the prompt, used as they are
  // The prompt is a conversation as its template writes it: special tokens that are written in it count, none are added. Otherwise those in the
  // prompt are plain text, and what the model expects around a text is added.
  bool is_chat = false;
  SamplingParams sampling;
};

// The value of TorchServe's input key "data": either a UTF-8 prompt, or a JSON object
// {"prompt", "max_tokens", "temperature", "top_k", "top_p", "seed", "stop" (string or list)}. "max_new_tokens" is another name of "max_tokens",
// which counts if both are there: keys are read in their alphabetical order.
// Text that starts (after white space) with '{' is taken as JSON. Unknown keys, wrong types and out-of-range values are
// kInvalidArgument naming the field, what was expected and what was found; unknown keys also the nearest known one.
[[nodiscard]] Result<GenerationRequest> parse_generation_request(std::string_view data);

}  // namespace penstock::text
