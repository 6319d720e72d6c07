#include "text/openai_request.h"

#include <algorithm>
#include <climits>

#include "text/constraint_fields.h"
#include "text/json_input.h"
#include "text/openai_fields.h"
#include "text/openai_messages.h"
#include "text/openai_tools.h"

namespace penstock::text {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr size_t kMaxChoices = 128;    // of all prompts together
constexpr int kCompletionTokens = 16;  // OpenAI's default; a chat goes on to the end of the model's context

void require(const Json& json, const char* name) {
  const auto found = json.find(name);
  if (found == json.end() || found->is_null()) throw OpenAiRefusal{fmt::format("{}: is missing", name), name, "missing_required_parameter"};
}

// The rules that several fields make together.
void check_together(const OpenAiDraft& draft) {
  const OpenAiCall& call = draft.call;
  const auto refuse = [](const char* name, std::string message) { throw OpenAiRefusal{std::move(message), name, "invalid_value"}; };
  if (draft.has_stream_options && !call.stream) refuse("stream_options", "stream_options: only goes with \"stream\": true");
  if (draft.best_of.value_or(0) > std::max(1, call.num_choices)) {
    throw OpenAiRefusal{fmt::format("best_of: {} is not supported; expected n, which is {}", *draft.best_of, call.num_choices), "best_of", "unsupported_value"};
  }
  const size_t prompts = call.prompts.size() + call.prompt_ids.size();
  if (prompts * static_cast<size_t>(call.num_choices) > kMaxChoices) {
    refuse("n", fmt::format("n: {} choices of {} prompts; expected at most {} in all", call.num_choices, prompts, kMaxChoices));
  }
  if (draft.top_logprobs > 0 && !draft.chat_logprobs) refuse("top_logprobs", "top_logprobs: only goes with \"logprobs\": true");
  if (call.prompt_logprobs && call.stream) refuse("prompt_logprobs", "prompt_logprobs: does not go with \"stream\": true");
  if (call.echo && !call.prompt_ids.empty()) refuse("echo", "echo: a prompt of token ids has no text to repeat; expected false");
}

OpenAiDraft read_fields(OpenAiApi api, const Json& json) {
  OpenAiDraft draft;
  for (const auto& [name, value] : json.items()) {
    if (!value.is_null()) read_openai_field(api, name, value, draft);
  }
  require(json, "model");
  require(json, api == kChat ? "messages" : "prompt");
  check_together(draft);
  SamplingParams& sampling = draft.call.sampling;
  if (sampling.top_p == 0) {  // the most likely token alone
    sampling.top_p = 1;
    sampling.top_k = 1;
    draft.call.given.push_back("top_k");
  }
  return draft;
}

// `json`: the body once more, with its keys in order, which templates write out and constrained texts follow.
void take_constraint(const OrderedJson& json, OpenAiDraft& draft) {
  if (draft.constrains) draft.call.sampling.constraint = read_constraint(json);
}

void take_chat(OrderedJson& json, OpenAiDraft& draft) {
  check_openai_messages(json["messages"]);
  draft.call.messages = json["messages"].dump();
  take_tools(json, static_cast<bool>(draft.call.sampling.constraint), draft.call);
  OrderedJson variables = OrderedJson::object();
  if (!draft.reasoning_effort.empty()) variables["reasoning_effort"] = draft.reasoning_effort;
  if (const auto given = json.find("chat_template_kwargs"); given != json.end() && given->is_object()) variables.update(*given);
  if (!variables.empty()) draft.call.variables = variables.dump();
}

// The last field that depends on another: max_tokens is known.
OpenAiCall finished(OpenAiDraft draft) {
  SamplingParams& sampling = draft.call.sampling;
  if (sampling.min_tokens > sampling.max_tokens) {
    throw OpenAiRefusal{fmt::format("min_tokens: expected at most max_tokens, which is {}, found {}", sampling.max_tokens, sampling.min_tokens), "min_tokens",
                        "invalid_value"};
  }
  if (draft.chat_logprobs) sampling.logprobs = draft.top_logprobs;
  if (draft.call.echo) sampling.prompt_logprobs = sampling.logprobs;
  if (draft.call.prompt_logprobs) sampling.prompt_logprobs = std::max(*draft.call.prompt_logprobs, sampling.prompt_logprobs.value_or(0));
  return std::move(draft.call);
}

template <typename Parse>
OpenAiBody refusals_of(Parse parse) {
  try {
    return parse();
  } catch (OpenAiRefusal& refusal) {
    return std::move(refusal);
  }
}

}  // namespace

OpenAiBody parse_completion_request(std::string_view body) {
  return refusals_of([&]() -> OpenAiCall {
    OpenAiDraft draft = read_fields(kCompletions, parse_openai_body(body));
    if (draft.constrains) take_constraint(OrderedJson::parse(body), draft);
    const int max_tokens = draft.max_tokens.value_or(kCompletionTokens);
    draft.call.prompt_only = max_tokens == 0;
    draft.call.sampling.max_tokens = std::max(1, max_tokens);
    return finished(std::move(draft));
  });
}

OpenAiBody parse_chat_request(std::string_view body) {
  return refusals_of([&]() -> OpenAiCall {
    OpenAiDraft draft = read_fields(kChat, parse_openai_body(body));
    OrderedJson json = OrderedJson::parse(body);
    take_constraint(json, draft);
    take_chat(json, draft);
    draft.call.sampling.max_tokens = draft.max_completion_tokens.value_or(draft.max_tokens.value_or(INT_MAX));
    return finished(std::move(draft));
  });
}

std::string model_named_in(std::string_view body) {
  const auto json = parse_json(body, "the request", Code::kInvalidArgument, {.depth = kRequestDepth});
  if (!json || !json.value().is_object()) return "";
  const auto model = json.value().find("model");
  return model != json.value().end() && model->is_string() ? model->get<std::string>() : "";
}

uint64_t choice_seed(uint64_t seed, int index) {
  if (index == 0) return seed;
  uint64_t z = seed ^ (0x9E3779B97F4A7C15ull * static_cast<uint64_t>(index));  // SplitMix64's finisher: neighbours share nothing
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

}  // namespace penstock::text
