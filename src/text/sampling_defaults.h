#pragma once
// How a model's maker says that texts are to be sampled, where a request does not say.
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "text/openai_request.h"

namespace penstock::text {

struct SamplingDefaults {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
};

// Those of generation_config.json in a Hugging Face directory; none where there is no such file, as beside a GGUF file.
// Errors: kDataLoss naming file and key, for a file that is no JSON object and for a value that is out of the ranges of SamplingParams.
[[nodiscard]] Result<SamplingDefaults> read_sampling_defaults(const std::filesystem::path& model);

// Fills what the body of the call did not give.
void apply_defaults(const SamplingDefaults& defaults, OpenAiCall& call);

}  // namespace penstock::text
