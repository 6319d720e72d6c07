#include "text/openai_fields.h"

#include <algorithm>
#include <climits>

#include "base/nearest_key.h"
#include "base/utf8.h"
#include "text/json_input.h"
#include "text/token_fields.h"

namespace penstock::text {
namespace {

using Json = nlohmann::json;

constexpr size_t kPromptLimit = 1 << 20;  // bytes, or ids
constexpr size_t kMaxChoices = 128;
constexpr size_t kMaxStops = 4;
constexpr size_t kMaxStopBytes = 256;

bool is_integer(const Json& value, int64_t min, int64_t max) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(max)) return false;
  const auto number = value.get<int64_t>();
  return number >= min && number <= max;
}

bool read_int(const Json& value, int64_t min, int64_t max, int& target) {
  if (!is_integer(value, min, max)) return false;
  target = value.get<int>();
  return true;
}

bool read_int(const Json& value, int64_t min, int64_t max, std::optional<int>& target) {
  return read_int(value, min, max, target.emplace());
}

bool is_number(const Json& value, double min, double max) {
  return value.is_number() && value.get<double>() >= min && value.get<double>() <= max;
}

bool read_number(const Json& value, double min, double max, double& target) {
  if (!is_number(value, min, max)) return false;
  target = value.get<double>();
  return true;
}

bool read_bool(const Json& value, bool& target) {
  if (!value.is_boolean()) return false;
  target = value.get<bool>();
  return true;
}

bool is_zero(const Json& value) { return value.is_number() && value.get<double>() == 0; }
bool is_one(const Json& value) { return value.is_number() && value.get<double>() == 1; }
bool is_false(const Json& value) { return value.is_boolean() && !value.get<bool>(); }
bool is_true(const Json& value) { return value.is_boolean() && value.get<bool>(); }
bool is_empty(const Json& value) { return (value.is_structured() && value.empty()) || value == ""; }
bool is_never(const Json&) { return false; }
bool is_bool(const Json& value) { return value.is_boolean(); }
bool is_anything(const Json&) { return true; }
bool is_list(const Json& value) { return value.is_array(); }

bool read_stop(const Json& value, std::vector<std::string>& target) {
  if (value.is_string()) return read_stop(Json::array({value}), target);
  if (!value.is_array() || value.size() > kMaxStops) return false;
  for (const Json& item : value) {
    if (!item.is_string()) return false;
    target.push_back(item.get<std::string>());
    if (target.back().empty() || target.back().size() > kMaxStopBytes) return false;
  }
  return true;
}

bool read_text_prompt(const Json& value, OpenAiCall& call) {
  if (!value.is_string()) return false;
  call.prompts.push_back(value.get<std::string>());
  return !call.prompts.back().empty() && call.prompts.back().size() <= kPromptLimit;
}

bool read_id_prompt(const Json& value, OpenAiCall& call) {
  return read_token_ids(value, kPromptLimit, call.prompt_ids.emplace_back()) && !value.empty();
}

bool read_prompt(const Json& value, OpenAiCall& call) {
  if (value.is_string()) return read_text_prompt(value, call);
  if (!value.is_array() || value.empty()) return false;
  if (value[0].is_number()) return read_id_prompt(value, call);
  if (value.size() > kMaxChoices) return false;
  for (const Json& item : value) {
    if (item.is_array() != value[0].is_array()) return false;  // texts and ids mixed
    if (!(item.is_array() ? read_id_prompt(item, call) : read_text_prompt(item, call))) return false;
  }
  return true;
}

bool read_stream_options(const Json& value, OpenAiDraft& draft) {
  if (!value.is_object()) return false;
  draft.has_stream_options = true;
  for (const auto& [key, item] : value.items()) {
    if (key == "include_usage" && (item.is_boolean() || item.is_null())) draft.call.include_usage = is_true(item);
    else if (key != "include_obfuscation" && !is_false(item)) return false;  // without it, chunks have no padding; we add none
  }
  return true;
}

bool read_constrained(const Json&, OpenAiDraft& draft) {
  draft.constrains = true;
  return true;
}

// A field that steers the generation. `read` answers false when the value does not fit `expected`.
struct HonouredField {
  std::string_view name;
  int apis;
  const char* expected;
  bool (*read)(const Json& value, OpenAiDraft& draft);
};

constexpr HonouredField kHonoured[] = {
    {"model", kBothApis, "the name of a model", [](const Json& v, OpenAiDraft& d) {
       if (!v.is_string()) return false;
       d.call.model = v.get<std::string>();
       return !d.call.model.empty();
     }},
    {"prompt", kCompletions, "a text of 1 byte to 1 MiB, a list of 1 to 1,048,576 token ids, or a list of 1 to 128 of either",
     [](const Json& v, OpenAiDraft& d) { return read_prompt(v, d.call); }},
    {"max_tokens", kCompletions, "an integer from 0 to 2147483647", [](const Json& v, OpenAiDraft& d) { return read_int(v, 0, INT_MAX, d.max_tokens); }},
    {"max_tokens", kChat, "an integer from 1 to 2147483647", [](const Json& v, OpenAiDraft& d) { return read_int(v, 1, INT_MAX, d.max_tokens); }},
    {"max_completion_tokens", kChat, "an integer from 1 to 2147483647",
     [](const Json& v, OpenAiDraft& d) { return read_int(v, 1, INT_MAX, d.max_completion_tokens); }},
    {"temperature", kBothApis, "a number from 0 to 2", [](const Json& v, OpenAiDraft& d) { return read_number(v, 0, 2, d.call.sampling.temperature); }},
    {"top_p", kBothApis, "a number from 0 to 1", [](const Json& v, OpenAiDraft& d) { return read_number(v, 0, 1, d.call.sampling.top_p); }},
    {"min_p", kBothApis, "a number from 0 to 1", [](const Json& v, OpenAiDraft& d) { return read_number(v, 0, 1, d.call.sampling.min_p); }},
    {"presence_penalty", kBothApis, "a number from -2 to 2",
     [](const Json& v, OpenAiDraft& d) { return read_number(v, -2, 2, d.call.sampling.presence_penalty); }},
    {"frequency_penalty", kBothApis, "a number from -2 to 2",
     [](const Json& v, OpenAiDraft& d) { return read_number(v, -2, 2, d.call.sampling.frequency_penalty); }},
    {"repetition_penalty", kBothApis, "a number > 0 and <= 10", [](const Json& v, OpenAiDraft& d) {
       return !is_zero(v) && read_number(v, 0, kMaxRepetitionPenalty, d.call.sampling.repetition_penalty);
     }},
    {"logit_bias", kBothApis, kLogitBiasExpected, [](const Json& v, OpenAiDraft& d) { return read_logit_bias(v, d.call.sampling.logit_bias); }},
    {"logprobs", kCompletions, "an integer from 0 to 5", [](const Json& v, OpenAiDraft& d) { return read_int(v, 0, 5, d.call.sampling.logprobs); }},
    {"logprobs", kChat, "true or false", [](const Json& v, OpenAiDraft& d) { return read_bool(v, d.chat_logprobs); }},
    {"top_logprobs", kChat, "an integer from 0 to 20", [](const Json& v, OpenAiDraft& d) { return read_int(v, 0, kMaxLogprobs, d.top_logprobs); }},
    {"prompt_logprobs", kBothApis, "an integer from 0 to 20", [](const Json& v, OpenAiDraft& d) { return read_int(v, 0, kMaxLogprobs, d.call.prompt_logprobs); }},
    {"min_tokens", kBothApis, "an integer from 0 to 2147483647", [](const Json& v, OpenAiDraft& d) { return read_int(v, 0, INT_MAX, d.call.sampling.min_tokens); }},
    {"stop_token_ids", kBothApis, kStopTokensExpected, [](const Json& v, OpenAiDraft& d) { return read_stop_tokens(v, d.call.sampling.stop_token_ids); }},
    {"cache_salt", kBothApis, "a text of at most 256 bytes", [](const Json& v, OpenAiDraft& d) {
       if (!v.is_string() || v.get_ref<const std::string&>().size() > 256) return false;
       d.call.cache_salt = v.get<std::string>();
       return true;
     }},
    {"top_k", kBothApis, "an integer from -1 to 2147483647 (-1 and 0: off)", [](const Json& v, OpenAiDraft& d) {
       if (!read_int(v, -1, INT_MAX, d.call.sampling.top_k)) return false;
       d.call.sampling.top_k = std::max(0, d.call.sampling.top_k);
       return true;
     }},
    {"seed", kBothApis, "an integer from -2^63 to 2^64 - 1", [](const Json& v, OpenAiDraft& d) {
       if (!v.is_number_integer()) return false;
       d.call.sampling.seed = v.is_number_unsigned() ? v.get<uint64_t>() : static_cast<uint64_t>(v.get<int64_t>());
       return true;
     }},
    {"stop", kBothApis, "a text or a list of at most 4 texts, each 1 to 256 bytes",
     [](const Json& v, OpenAiDraft& d) { return read_stop(v, d.call.sampling.stop); }},
    {"skip_special_tokens", kBothApis, "true or false", [](const Json& v, OpenAiDraft& d) { return read_bool(v, d.call.sampling.skip_special_tokens); }},
    {"ignore_eos", kBothApis, "true or false", [](const Json& v, OpenAiDraft& d) { return read_bool(v, d.call.sampling.ignore_eos); }},
    {"n", kBothApis, "an integer from 1 to 128", [](const Json& v, OpenAiDraft& d) { return read_int(v, 1, kMaxChoices, d.call.num_choices); }},
    {"best_of", kCompletions, "an integer from 0 to 20", [](const Json& v, OpenAiDraft& d) { return read_int(v, 0, 20, d.best_of); }},
    {"stream", kBothApis, "true or false", [](const Json& v, OpenAiDraft& d) { return read_bool(v, d.call.stream); }},
    {"stream_options", kBothApis, "an object with include_usage (true or false) and no other option that is on", read_stream_options},
    {"echo", kCompletions, "true or false", [](const Json& v, OpenAiDraft& d) { return read_bool(v, d.call.echo); }},
    // Read from the body again, with the keys of schemas in order.
    {"response_format", kBothApis, "an object", read_constrained},
    {"guided_json", kBothApis, "a JSON schema", read_constrained},
    {"guided_regex", kBothApis, "a regular expression", read_constrained},
    {"guided_choice", kBothApis, "a list of texts", read_constrained},
    {"structured_outputs", kBothApis, "an object", read_constrained},
    // What is kept of the next four is taken from the body again, with its keys in order.
    {"messages", kChat, "a list of 1 to 10,000 messages", [](const Json& v, OpenAiDraft&) { return v.is_array() && !v.empty() && v.size() <= 10000; }},
    {"tools", kChat, "a list of tools", [](const Json& v, OpenAiDraft&) { return v.is_array(); }},
    {"tool_choice", kChat, "none, auto, required or a tool", [](const Json& v, OpenAiDraft&) { return v.is_string() || v.is_object(); }},
    {"parallel_tool_calls", kChat, "true or false", [](const Json& v, OpenAiDraft& d) { return read_bool(v, d.call.tool_use.parallel); }},
    {"chat_template_kwargs", kChat, "an object", [](const Json& v, OpenAiDraft&) { return v.is_object(); }},
    {"reasoning_effort", kChat, "a text", [](const Json& v, OpenAiDraft& d) {
       if (!v.is_string() || v.get_ref<const std::string&>().size() > 32) return false;
       d.reasoning_effort = v.get<std::string>();
       return true;
     }},
    {"add_generation_prompt", kChat, "true or false", [](const Json& v, OpenAiDraft& d) { return read_bool(v, d.call.add_generation_prompt); }},
};

// A field that asks for what is not there, unless it has the value that changes nothing.
struct NeutralField {
  std::string_view name;
  int apis;
  bool (*in_range)(const Json& value);
  const char* range;
  bool (*neutral)(const Json& value);
  const char* neutral_text;
};

constexpr NeutralField kNeutral[] = {
    {"length_penalty", kBothApis, is_anything, "a number", is_one, "1"},
    {"suffix", kCompletions, [](const Json& v) { return v.is_string(); }, "a text", is_empty, "\"\""},
    {"guided_grammar", kBothApis, is_anything, "", is_never, "null"},
    {"functions", kChat, is_anything, "", is_never, "null (functions are called tools now)"},
    {"function_call", kChat, is_anything, "", is_never, "null (functions are called tools now)"},
    {"modalities", kChat, is_list, "a list", [](const Json& v) { return v == Json::array({"text"}); }, "[\"text\"]"},
    {"audio", kChat, is_anything, "", is_never, "null"},
    {"prediction", kChat, is_anything, "", is_never, "null"},
    {"web_search_options", kChat, is_anything, "", is_never, "null"},
    {"chat_template", kChat, is_anything, "", is_never, "null (the model's own template is used)"},
    {"continue_final_message", kChat, is_bool, "true or false", is_false, "false"},
    {"echo", kChat, is_bool, "true or false", is_false, "false"},
    {"add_special_tokens", kCompletions, is_bool, "true or false", is_true, "true"},
    {"add_special_tokens", kChat, is_bool, "true or false", is_false, "false (the template writes them)"},
    {"bad_words", kBothApis, is_list, "a list", is_empty, "[]"},
    {"allowed_token_ids", kBothApis, is_list, "a list", is_empty, "[]"},
    {"spaces_between_special_tokens", kBothApis, is_bool, "true or false", is_bool, "true or false"},
    {"include_stop_str_in_output", kBothApis, is_bool, "true or false", is_false, "false"},
    {"truncate_prompt_tokens", kBothApis, is_anything, "", is_never, "null"},
    {"return_token_ids", kBothApis, is_bool, "true or false", is_false, "false"},
    {"use_beam_search", kBothApis, is_bool, "true or false", is_false, "false"},
    {"priority", kBothApis, is_anything, "an integer", is_zero, "0"},
};

// Without influence on the text.
struct IgnoredField {
  std::string_view name;
  int apis;
};

constexpr IgnoredField kIgnored[] = {
    {"user", kBothApis},           {"metadata", kChat},          {"store", kChat},          {"service_tier", kBothApis},
    {"safety_identifier", kChat},  {"prompt_cache_key", kChat},  {"verbosity", kChat},      {"prompt_cache_retention", kChat},
    {"request_id", kBothApis},     {"include_reasoning", kChat},
};

void read_neutral(const NeutralField& field, const Json& value) {
  const bool fits = field.in_range(value);
  if (fits && field.neutral(value)) return;
  if (!fits) throw out_of_range(field.name, field.range, value);
  throw OpenAiRefusal{fmt::format("{}: {} is not supported; expected {}", field.name, shown(value), field.neutral_text), std::string(field.name),
                      "unsupported_value"};
}

[[noreturn]] void refuse_unknown(OpenAiApi api, const std::string& name) {
  std::vector<std::string_view> known;
  for (const auto& field : kHonoured) {
    if (field.apis & api) known.push_back(field.name);
  }
  for (const auto& field : kNeutral) {
    if (field.apis & api) known.push_back(field.name);
  }
  for (const auto& field : kIgnored) {
    if (field.apis & api) known.push_back(field.name);
  }
  throw unknown_openai_field(name, known);
}

}  // namespace

Json parse_openai_body(std::string_view body) {
  auto json = parse_json(body, "the request", Code::kInvalidArgument, {.depth = kRequestDepth, .key_comparisons = kMaxKeyComparisons});
  if (!json) throw OpenAiRefusal{json.error().message(), "", "invalid_json"};
  if (!json->is_object()) throw OpenAiRefusal{fmt::format("the request: expected a JSON object, found {}", shown(*json)), "", "invalid_json"};
  return std::move(*json);
}

bool is_openai_field(std::string_view name) {
  return std::ranges::any_of(kHonoured, [&](const HonouredField& field) { return field.name == name; });
}

OpenAiRefusal unknown_openai_field(std::string_view name, const std::vector<std::string_view>& known) {
  const std::string shortened(utf8_prefix(name, 120));
  return {unknown_key(shortened, known), shortened, "unknown_parameter"};
}

OpenAiRefusal out_of_range(std::string_view name, std::string_view expected, const Json& value) {
  // The prompt is not repeated: it may be private.
  const bool is_text = name == "prompt" && value.is_string();
  const std::string found = is_text ? fmt::format("a text of {} bytes", value.get_ref<const std::string&>().size()) : shown(value);
  return {fmt::format("{}: expected {}, found {}", name, expected, found), std::string(name), "invalid_value"};
}

void read_openai_field(OpenAiApi api, const std::string& name, const Json& value, OpenAiDraft& draft) {
  for (const HonouredField& field : kHonoured) {
    if (field.name != name || !(field.apis & api)) continue;
    if (field.read(value, draft)) return draft.call.given.push_back(field.name);
    throw out_of_range(name, field.expected, value);
  }
  for (const NeutralField& field : kNeutral) {
    if (field.name == name && (field.apis & api)) return read_neutral(field, value);
  }
  for (const IgnoredField& field : kIgnored) {
    if (field.name == name && (field.apis & api)) return;
  }
  refuse_unknown(api, name);
}

}  // namespace penstock::text
