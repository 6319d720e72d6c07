#include "text/sampling_defaults.h"

#include <algorithm>
#include <climits>

#include "text/json_node.h"

namespace penstock::text {
namespace {

std::optional<double> number_in(const JsonNode& node, double min, double max, bool min_allowed, const char* expected) {
  if (!node) return std::nullopt;
  const bool is_number = node.value().is_number();
  const double number = is_number ? node.real() : 0;
  if (!is_number || !(number >= min && number <= max) || (number == min && !min_allowed)) throw node.wrong(expected);
  return number;
}

SamplingDefaults read_defaults(const JsonNode& root) {
  SamplingDefaults defaults;
  defaults.temperature = number_in(root["temperature"], 0, 2, true, "a number from 0 to 2");
  defaults.top_p = number_in(root["top_p"], 0, 1, false, "a number > 0 and <= 1");
  defaults.min_p = number_in(root["min_p"], 0, 1, true, "a number from 0 to 1");
  defaults.repetition_penalty = number_in(root["repetition_penalty"], 0, kMaxRepetitionPenalty, false, "a number > 0 and <= 10");
  if (const JsonNode top_k = root["top_k"]) {
    const bool fits = top_k.value().is_number_integer() && top_k.number() >= -1 && top_k.number() <= INT_MAX;
    if (!fits) throw top_k.wrong("an integer >= -1 (-1 and 0: off)");
    defaults.top_k = static_cast<int>(std::max<int64_t>(0, top_k.number()));
  }
  return defaults;
}

template <typename Value>
void fill(const OpenAiCall& call, std::string_view field, const std::optional<Value>& otherwise, Value& target) {
  if (otherwise && std::find(call.given.begin(), call.given.end(), field) == call.given.end()) target = *otherwise;
}

}  // namespace

Result<SamplingDefaults> read_sampling_defaults(const std::filesystem::path& model) {
  const std::filesystem::path file = model / "generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(file, ignored)) return SamplingDefaults{};
  try {
    const nlohmann::json document = read_json_file(file).value();
    const JsonNode root(document, file.string());
    if (!root.is_object()) throw root.wrong("an object");
    return read_defaults(root);
  } catch (const Error& e) {
    return e;
  }
}

void apply_defaults(const SamplingDefaults& defaults, OpenAiCall& call) {
  SamplingParams& sampling = call.sampling;
  fill(call, "temperature", defaults.temperature, sampling.temperature);
  fill(call, "top_p", defaults.top_p, sampling.top_p);
  fill(call, "min_p", defaults.min_p, sampling.min_p);
  fill(call, "repetition_penalty", defaults.repetition_penalty, sampling.repetition_penalty);
  fill(call, "top_k", defaults.top_k, sampling.top_k);
}

}  // namespace penstock::text
