#include "text/generation_request.h"

#include <algorithm>
#include <climits>
#include <functional>

#include "base/nearest_key.h"
#include "base/utf8.h"
#include "text/constraint_fields.h"
#include "text/generation_check.h"
#include "text/json_input.h"
#include "text/openai_request.h"
#include "text/token_fields.h"

namespace penstock::text {
namespace {


using Json = nlohmann::json;

// A key of the request: what fits, and where it goes. `read` answers false when the value does not fit `expected`.
struct RequestField {
  std::string_view key;
  const char* expected;
  bool (*read)(const Json& value, GenerationRequest& request);
};

bool read_int(const Json& value, int64_t min, int& target) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT_MAX) return false;
  const auto number = value.get<int64_t>();
  if (number < min || number > INT_MAX) return false;
  target = static_cast<int>(number);
  return true;
}

bool read_number(const Json& value, double min, double max, double& target) {
  if (!value.is_number()) return false;
  target = value.get<double>();
  return target >= min && target <= max;
}

bool read_stop(const Json& value, std::vector<std::string>& target) {
  if (value.is_string()) return read_stop(Json::array({value}), target);
  if (!value.is_array() || value.size() > kMaxStops) return false;
  std::vector<std::string> stops;
  for (const Json& item : value) {
    if (!item.is_string()) return false;
    stops.push_back(item.get<std::string>());
    if (stops.back().empty() || stops.back().size() > kMaxStopBytes) return false;
  }
  target = std::move(stops);
  return true;
}

constexpr RequestField kFields[] = {
    {"prompt", "text of 1 byte to 1 MiB",
     [](const Json& v, GenerationRequest& r) {
       if (!v.is_string()) return false;
       r.prompt = v.get<std::string>();
       return !r.prompt.empty() && r.prompt.size() <= kMaxPromptBytes;
     }},
    {"max_new_tokens", "an integer >= 1", [](const Json& v, GenerationRequest& r) { return read_int(v, 1, r.sampling.max_tokens); }},
    {"max_tokens", "an integer >= 1", [](const Json& v, GenerationRequest& r) { return read_int(v, 1, r.sampling.max_tokens); }},
    {"temperature", "a number from 0 to 2",
     [](const Json& v, GenerationRequest& r) { return read_number(v, 0, 2, r.sampling.temperature); }},
    {"min_tokens", "an integer >= 0", [](const Json& v, GenerationRequest& r) { return read_int(v, 0, r.sampling.min_tokens); }},
    {"min_p", "a number from 0 to 1", [](const Json& v, GenerationRequest& r) { return read_number(v, 0, 1, r.sampling.min_p); }},
    {"repetition_penalty", "a number > 0 and <= 10",
     [](const Json& v, GenerationRequest& r) { return read_number(v, 0, kMaxRepetitionPenalty, r.sampling.repetition_penalty) && r.sampling.repetition_penalty > 0; }},
    {"presence_penalty", "a number from -2 to 2", [](const Json& v, GenerationRequest& r) { return read_number(v, -2, 2, r.sampling.presence_penalty); }},
    {"frequency_penalty", "a number from -2 to 2", [](const Json& v, GenerationRequest& r) { return read_number(v, -2, 2, r.sampling.frequency_penalty); }},
    {"logit_bias", kLogitBiasExpected, [](const Json& v, GenerationRequest& r) { return read_logit_bias(v, r.sampling.logit_bias); }},
    {"stop_token_ids", kStopTokensExpected, [](const Json& v, GenerationRequest& r) { return read_stop_tokens(v, r.sampling.stop_token_ids); }},
    {"ignore_eos", "true or false",
     [](const Json& v, GenerationRequest& r) {
       if (!v.is_boolean()) return false;
       r.sampling.ignore_eos = v.get<bool>();
       return true;
     }},
    {"top_k", "an integer >= 0", [](const Json& v, GenerationRequest& r) { return read_int(v, 0, r.sampling.top_k); }},
    {"top_p", "a number > 0 and <= 1",
     [](const Json& v, GenerationRequest& r) { return read_number(v, 0, 1, r.sampling.top_p) && r.sampling.top_p > 0; }},
    {"seed", "an integer from 0 to 2^64 - 1",
     [](const Json& v, GenerationRequest& r) {
       if (!v.is_number_unsigned()) return false;
       r.sampling.seed = v.get<uint64_t>();
       return true;
     }},
    {"stop", "a text or a list of at most 16 texts, each 1 to 256 bytes",
     [](const Json& v, GenerationRequest& r) { return read_stop(v, r.sampling.stop); }},
};

std::optional<Error> read_field(const std::string& key, const Json& value, GenerationRequest& request) {
  std::vector<std::string_view> known;
  for (const RequestField& field : kFields) {
    if (field.key == key) {
      if (field.read(value, request)) return std::nullopt;
      // The prompt itself is not repeated: it may be private, and its size is what matters.
      const bool hide = key == "prompt" && value.is_string();
      const std::string found = hide ? fmt::format("{} bytes", value.get_ref<const std::string&>().size()) : shown(value);
      return error(Code::kInvalidArgument, "field '{}': expected {}, found {}", key, field.expected, found);
    }
    known.push_back(field.key);
  }
  known.insert(known.end(), std::begin(kConstraintFields), std::end(kConstraintFields));
  return error(Code::kInvalidArgument, "{}", unknown_key(utf8_prefix(key, 120), known));
}

bool is_constraint(std::string_view key) { return std::find(std::begin(kConstraintFields), std::end(kConstraintFields), key) != std::end(kConstraintFields); }

Result<GenerationRequest> parse_object(std::string_view data) {
  Result<Json> json = parse_json(data, "field 'data'", Code::kInvalidArgument, {.depth = kRequestDepth, .key_comparisons = kMaxKeyComparisons});
  if (!json) return json.error();
  GenerationRequest request;
  bool constrains = false;
  for (const auto& [key, value] : json->items()) {
    if (is_constraint(key)) {
      constrains = true;
      continue;
    }
    if (auto problem = read_field(key, value, request)) return *problem;
  }
  if (request.prompt.empty()) return error(Code::kInvalidArgument, "field 'prompt': expected text, found nothing");
  try {  // once more, with the keys of schemas in order
    if (constrains) request.sampling.constraint = read_constraint(nlohmann::ordered_json::parse(data));
  } catch (const OpenAiRefusal& refusal) {
    return error(Code::kInvalidArgument, "field {}", refusal.message);
  }
  if (request.sampling.min_tokens > request.sampling.max_tokens) {
    return error(Code::kInvalidArgument, "field 'min_tokens': expected at most max_tokens, {}, found {}", request.sampling.max_tokens, request.sampling.min_tokens);
  }
  return request;
}

}  // namespace

Result<GenerationRequest> parse_generation_request(std::string_view data) {
  if (data.size() > kMaxRequestBytes) {
    return error(Code::kInvalidArgument, "field 'data': expected at most {} bytes, found {}", kMaxRequestBytes, data.size());
  }
  const size_t first = data.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && data[first] == '{') return parse_object(data);

  if (data.empty()) return error(Code::kInvalidArgument, "field 'data': expected a prompt, found nothing");
  if (data.size() > kMaxPromptBytes) {
    return error(Code::kInvalidArgument, "field 'data': expected a prompt of at most {} bytes, found {}", kMaxPromptBytes, data.size());
  }
  if (const size_t at = find_invalid_utf8(data); at != std::string_view::npos) {
    return error(Code::kInvalidArgument, "field 'data': expected UTF-8, found an invalid byte 0x{:02x} at offset {}",
                 static_cast<unsigned char>(data[at]), at);
  }
  GenerationRequest request;
  request.prompt = data;
  return request;
}

}  // namespace penstock::text
