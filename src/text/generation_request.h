#pragma once
// What a client asks for, parsed and checked.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/text_constraint.h"

namespace penstock::text {

struct SamplingParams {
  int max_tokens = 256;            // >= 1
  int min_tokens = 0;              // 0 ... max_tokens; before, neither an end token nor a stop string ends the text
  double temperature = 1.0;        // 0 ... 2; 0 = greedy
  int top_k = 0;                   // >= 0; 0 = off
  double top_p = 1.0;              // (0, 1]; 1 = off
  double min_p = 0;                // 0 ... 1; 0 = off
  double repetition_penalty = 1;   // (0, 10]; 1 = off
  double presence_penalty = 0;     // -2 ... 2
  double frequency_penalty = 0;    // -2 ... 2
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // by token id, each -100 ... 100; at most 1024
  std::optional<uint64_t> seed;    // absent = a fresh one for each request
  std::vector<std::string> stop;   // at most 16, each 1 ... 256 bytes; not part of the output
  std::vector<int32_t> stop_token_ids = {};  // at most 64; not part of the output
  std::optional<int> logprobs = {};          // 0 ... 20: log probability of each token, and of so many that were most likely in its place
  std::optional<int> prompt_logprobs = {};   // 0 ... 20: the same of each token of the prompt
  bool skip_special_tokens = true; // of the model's own answer they are no text
  bool ignore_eos = false;         // the token that ends a text does not; for measurements
  TextConstraint constraint = {};  // what the text must be; constraint_grammar() takes it
};

inline constexpr size_t kMaxRequestBytes = size_t{4} << 20;
inline constexpr size_t kMaxLogitBiases = 1024;
inline constexpr size_t kMaxStopTokens = 64;
inline constexpr int kMaxLogprobs = 20;
inline constexpr double kMaxRepetitionPenalty = 10;

struct GenerationRequest {
  std::string prompt;              // UTF-8, not empty unless there are ids
  std::vector<int32_t> prompt_ids = {};  // in place of the prompt, used as they are
  // The prompt is a conversation as its template writes it: special tokens that are written in it count, none are added. Otherwise those in the
  // prompt are plain text, and what the model expects around a text is added.
  bool is_chat = false;
  SamplingParams sampling;
  std::vector<int32_t> generated_ids = {};  // the answer's tokens that are known already: it goes on after them, and only that is sent
  std::string cache_salt = {};     // what was computed for one request is used for others with the same salt only
};

// The value of TorchServe's input key "data": either a UTF-8 prompt, or a JSON object
// {"prompt", and of SamplingParams' fields by their names those that a request has}; "stop" is a string or a list, "logit_bias" an object of ids and
// numbers; "response_format", "guided_json", "guided_regex", "guided_choice" and "structured_outputs" as OpenAI's API and vLLM have them. "max_new_tokens" is another name of "max_tokens", which counts if both are there: keys are read in their alphabetical order.
// Text that starts (after white space) with '{' is taken as JSON. Unknown keys, wrong types and out-of-range values are
// kInvalidArgument naming the field, what was expected and what was found; unknown keys also the nearest known one.
// At most kMaxRequestBytes.
[[nodiscard]] Result<GenerationRequest> parse_generation_request(std::string_view data);

}  // namespace penstock::text
