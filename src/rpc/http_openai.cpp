#include "rpc/http_openai.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include "frontend/job.h"
#include "frontend/model_texts.h"
#include "rpc/http_job_options.h"
#include "rpc/openai_answer.h"
#include "text/chat_prompt.h"
#include "text/openai_answer.h"
#include "text/openai_request.h"
#include "text/openai_tokens.h"
#include "text/sampling_defaults.h"
#include "text/tool_call_reader.h"

namespace penstock::rpc {
namespace {

using Reply = std::shared_ptr<HttpReply>;
using Model = std::shared_ptr<frontend::ServedModel>;

int64_t unix_seconds() {
  return std::chrono::duration_cast<seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// OpenAI's answer to a wrong key.
HttpResponse key_refusal(const Error& refused) {
  if (refused.code() == Code::kPermissionDenied) {
    HttpResponse response = openai_response({401, "invalid_request_error", {refused.message(), "", "invalid_api_key"}});
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
  }
  HttpResponse response = openai_response(text::openai_failure(refused, ""));
  response.headers = token_refusal(refused).headers;  // when to try again
  return response;
}

bool generates_text(const frontend::ServedModel& model) { return model.spec().handler_kind == frontend::HandlerKind::kText; }

// The prompts of a call in the form that the worker takes them.
std::vector<text::GenerationRequest> requests_of(text::OpenAiCall& call) {
  std::vector<text::GenerationRequest> requests;
  for (std::string& prompt : call.prompts) requests.push_back({.prompt = prompt, .prompt_ids = {}, .is_chat = false, .sampling = call.sampling});
  for (auto& ids : call.prompt_ids) requests.push_back({.prompt = "", .prompt_ids = std::move(ids), .is_chat = false, .sampling = call.sampling});
  return requests;
}

// More never fit, also while nobody else asks for anything.
size_t most_choices(const frontend::ServedModel& model) {
  const auto info = model.info();
  const int num_groups = model.range().max;
  if (!info || num_groups == 0) return SIZE_MAX;  // there is no worker: that will be said
  return static_cast<size_t>(model.job_queue_size()) + static_cast<size_t>(num_groups) * static_cast<size_t>(info->max_concurrent);
}

// How the texts of a chat are read. `format`: in which the model calls tools when it need not.
std::optional<text::ToolReading> tool_reading(const text::ToolUse& use, text::ToolFormat format) {
  text::ToolReading reading{.format = format, .function = use.function, .max_calls = use.parallel ? text::kMaxToolCalls : 1, .short_ids = format == text::ToolFormat::kMistral};
  if (use.choice == text::ToolUse::Choice::kRequired) reading.format = text::ToolFormat::kCallList;
  if (use.choice == text::ToolUse::Choice::kNamed) reading.format = text::ToolFormat::kArguments;
  const bool reads = use.choice != text::ToolUse::Choice::kNone && reading.format != text::ToolFormat::kNone;
  return reads ? std::optional(std::move(reading)) : std::nullopt;
}

// The handlers, and what they share. Kept alive by the routes.
class OpenAiApi : public std::enable_shared_from_this<OpenAiApi> {
 public:
  OpenAiApi(const frontend::ModelRegistry& registry, CallPool& pool, size_t max_response_bytes)
      : registry_(registry), pool_(pool), max_response_bytes_(max_response_bytes) {}

  void list_models(const Reply& reply) const;
  void describe_model(const std::string& id, const Reply& reply) const;
  void complete(const HttpRequest& request, const Reply& reply);
  void chat(const HttpRequest& request, const Reply& reply);
  void tokenize(const HttpRequest& request, const Reply& reply);
  void detokenize(const HttpRequest& request, const Reply& reply);

  // Runs `call` on the pool; what it throws is the answer, and `prompt_field` the field that is to blame for it.
  void run(const HttpRequest& request, const Reply& reply, const char* prompt_field, std::function<void(const HttpRequest&)> call);

 private:
  [[nodiscard]] Result<Model> find(const std::string& id) const;
  [[nodiscard]] Result<Model> find(const HttpRequest& request, const std::string& id) const;
  void refuse_body(const HttpRequest& request, const text::OpenAiRefusal& refusal, const Reply& reply) const;
  [[nodiscard]] std::string model_json(const Model& model, const std::string& id) const;
  void start(const HttpRequest& http, const Model& model, const text::OpenAiCall& call, text::OpenAiKind kind,
             std::vector<text::GenerationRequest> requests, const Reply& reply);
  [[nodiscard]] text::Tokenizer tokenizer(const Model& model);
  [[nodiscard]] std::string chat_prompt(const Model& model, const text::OpenAiCall& call);

  const frontend::ModelRegistry& registry_;
  CallPool& pool_;
  const size_t max_response_bytes_;
  const int64_t started_ = unix_seconds();
  frontend::ModelTexts texts_;
};

void refuse(const Reply& reply, const Error& error, std::string_view prompt_field = "") {
  reply->send(openai_response(text::openai_failure(error, prompt_field)));
}

void OpenAiApi::run(const HttpRequest& request, const Reply& reply, const char* prompt_field, std::function<void(const HttpRequest&)> call) {
  auto guarded = [request, reply, prompt_field, call = std::move(call)] {
    try {
      call(request);
    } catch (const Error& failure) {
      refuse(reply, failure, prompt_field);
    } catch (const std::exception& failure) {
      refuse(reply, error(Code::kInternal, "{}", failure.what()));
    }
  };
  pool_.run(std::move(guarded), [reply](const Error& why) { refuse(reply, why); }, request.body.size());
}

Result<Model> OpenAiApi::find(const std::string& id) const {
  const size_t colon = std::min(id.find(':'), id.size());
  return registry_.find(id.substr(0, colon), id.substr(std::min(id.size(), colon + 1)));
}

// Of TorchServe's paths, which name the model themselves, that one.
Result<Model> OpenAiApi::find(const HttpRequest& request, const std::string& id) const {
  const auto name = request.parameters.find("model_name");
  auto model = name == request.parameters.end() ? find(id) : registry_.find(name->second, request.parameters.at("model_version"));
  if (!model || generates_text(**model)) return model;
  return error(Code::kUnimplemented, "the model '{}' does not generate text: its handler is '{}'; expected 'llm'", id, (*model)->spec().handler);
}

// A model that is not there is the first thing that a client wants to know, whatever else is wrong with its body.
void OpenAiApi::refuse_body(const HttpRequest& request, const text::OpenAiRefusal& refusal, const Reply& reply) const {
  const auto model = find(request, text::model_named_in(request.body));
  if (!model && model.error().code() == Code::kNotFound) return refuse(reply, model.error());
  reply->send(openai_response({400, "invalid_request_error", refusal}));
}

// Also what KServe's first protocol asks of a model: its name, and whether it is ready.
std::string OpenAiApi::model_json(const Model& model, const std::string& id) const {
  const auto info = model->info();
  return fmt::format(R"({{"id":{0},"object":"model","created":{1},"owned_by":"penstock","root":{0},"parent":null,"max_model_len":{2},"name":{3},"ready":{4}}})",
                     text::json_text(id), started_, info ? std::to_string(info->max_sequence_tokens) : "null", text::json_text(model->name()),
                     model->serving());
}

void OpenAiApi::list_models(const Reply& reply) const {
  const auto defaults = registry_.defaults();
  std::string list;
  for (const Model& model : registry_.models()) {
    if (!generates_text(*model)) continue;
    const bool is_default = std::find(defaults.begin(), defaults.end(), model) != defaults.end();
    if (!list.empty()) list += ',';
    list += model_json(model, is_default ? model->name() : model->name() + ":" + model->version());
  }
  reply->send({200, "application/json", "{\"object\":\"list\",\"data\":[" + list + "]}", {}});
}

void OpenAiApi::describe_model(const std::string& id, const Reply& reply) const {
  auto model = find(id);
  if (!model) return refuse(reply, model.error());
  reply->send({200, "application/json", model_json(*model, id), {}});
}

void OpenAiApi::complete(const HttpRequest& request, const Reply& reply) {
  text::OpenAiBody parsed = text::parse_completion_request(request.body);
  if (const auto* refusal = std::get_if<text::OpenAiRefusal>(&parsed)) return refuse_body(request, *refusal, reply);
  auto& call = std::get<text::OpenAiCall>(parsed);
  auto model = find(request, call.model);
  if (!model) return refuse(reply, model.error());
  text::apply_defaults((*model)->spec().sampling_defaults, call);
  start(request, *model, call, text::OpenAiKind::kCompletion, requests_of(call), reply);
}

void OpenAiApi::chat(const HttpRequest& request, const Reply& reply) {
  text::OpenAiBody parsed = text::parse_chat_request(request.body);
  if (const auto* refusal = std::get_if<text::OpenAiRefusal>(&parsed)) return refuse_body(request, *refusal, reply);
  auto& call = std::get<text::OpenAiCall>(parsed);
  auto model = find(request, call.model);
  if (!model) return refuse(reply, model.error());
  text::apply_defaults((*model)->spec().sampling_defaults, call);
  if (call.tool_use.choice == text::ToolUse::Choice::kAuto && text::has_special_marks(texts_.of(*model)->tool_format)) call.sampling.skip_special_tokens = false;
  start(request, *model, call, text::OpenAiKind::kChat, {{.prompt = chat_prompt(*model, call), .prompt_ids = {}, .is_chat = true, .sampling = call.sampling}}, reply);
}

// Throws Error.
text::Tokenizer OpenAiApi::tokenizer(const Model& model) {
  const auto text = texts_.of(model);
  if (!text->tokenizer) throw error(Code::kInternal, "the model '{}' has no usable tokenizer: {}", model->name(), text->tokenizer.error().message());
  return text->tokenizer.value();
}

// Throws Error.
std::string OpenAiApi::chat_prompt(const Model& model, const text::OpenAiCall& call) {
  const auto text = texts_.of(model);
  if (!text->chat_template && text->chat_template.error().code() == Code::kNotFound) {
    throw error(Code::kInvalidArgument, "the model '{}' has no chat template; use /v1/completions, or give its folder a chat_template.jinja", model->name());
  }
  return text::render_chat_prompt(text->chat_template.value(), tokenizer(model), call).value();
}

void OpenAiApi::start(const HttpRequest& http, const Model& model, const text::OpenAiCall& call, text::OpenAiKind kind,
                      std::vector<text::GenerationRequest> requests, const Reply& reply) {
  const bool is_chat = kind == text::OpenAiKind::kChat;
  auto job_options_given = job_options(http);
  if (!job_options_given) return refuse(reply, job_options_given.error());
  if (call.stream && !reply->can_stream()) return refuse(reply, Error(Code::kInvalidArgument, "stream: true needs HTTP/1.1"));
  OpenAiAnswerOptions options{.stream = call.stream,
                              .choices_per_prompt = call.num_choices,
                              .prompts = {},
                              .prompt_only = call.prompt_only,
                              .logprobs = call.sampling.logprobs.has_value(),
                              .prompt_logprobs = call.prompt_logprobs,
                              .echo_logprobs = call.sampling.logprobs.value_or(0),
                              .kind = kind,
                              .prompt_field = is_chat ? "messages" : "prompt",
                              .max_bytes = max_response_bytes_};
  if (call.echo) options.prompts = call.prompts;
  if (call.tool_use.choice != text::ToolUse::Choice::kNone) options.tools = tool_reading(call.tool_use, texts_.of(model)->tool_format);
  const size_t num_choices = requests.size() * static_cast<size_t>(call.num_choices);
  if (const size_t most = most_choices(*model); num_choices > most) {
    std::string message = fmt::format("n: {} choices in all; the model '{}' takes at most {} at once (jobQueueSize, handler.max_concurrent)", num_choices, model->name(), most);
    return reply->send(openai_response({400, "invalid_request_error", {std::move(message), "n", "invalid_value"}}));
  }
  text::OpenAiWriter writer(kind, http.id, unix_seconds(), call.model, model->name() + ":" + model->version(), call.include_usage);
  const auto answer = std::make_shared<OpenAiAnswer>(reply, std::move(writer), num_choices, std::move(options));
  reply->when_gone([answer] { answer->cancel(); });  // before there can be an answer, after which the reply belongs to the connection's next request
  for (size_t i = 0; i < num_choices; ++i) {
    text::GenerationRequest request = requests[i / static_cast<size_t>(call.num_choices)];
    request.cache_salt = call.cache_salt;
    if (request.sampling.seed) request.sampling.seed = text::choice_seed(*request.sampling.seed, static_cast<int>(i) % call.num_choices);
    auto submitted = model->jobs().submit(std::move(request), *job_options_given, answer->observer(i));
    if (!submitted) return answer->fail(submitted.error());
    answer->add_job(model, *submitted);
  }
}

void OpenAiApi::tokenize(const HttpRequest& request, const Reply& reply) {
  auto parsed = text::parse_tokenize_request(request.body);
  if (const auto* refusal = std::get_if<text::OpenAiRefusal>(&parsed)) return refuse_body(request, *refusal, reply);
  const auto* chat = std::get_if<text::OpenAiCall>(&parsed);
  auto model = find(request, chat ? chat->model : std::get<text::TokenizeCall>(parsed).model);
  if (!model) return refuse(reply, model.error());
  std::vector<int32_t> tokens;
  if (chat) {
    tokens = tokenizer(*model).encode(chat_prompt(*model, *chat), {.parse_special_tokens = true});
  } else {
    const auto& call = std::get<text::TokenizeCall>(parsed);
    tokens = tokenizer(*model).encode(call.prompt, {.add_special_tokens = call.add_special_tokens});
  }
  const auto info = (*model)->info();
  reply->send({200, "application/json", text::tokenized_json(tokens, info ? info->max_sequence_tokens : 0), {}});
}

void OpenAiApi::detokenize(const HttpRequest& request, const Reply& reply) {
  const auto parsed = text::parse_detokenize_request(request.body);
  if (const auto* refusal = std::get_if<text::OpenAiRefusal>(&parsed)) return refuse_body(request, *refusal, reply);
  const auto& call = std::get<text::DetokenizeCall>(parsed);
  auto model = find(request, call.model);
  if (!model) return refuse(reply, model.error());
  const text::Tokenizer words = tokenizer(*model);
  size_t bytes = 0;
  for (const int32_t id : call.tokens) bytes += words.bytes_of(id, text::SpecialTokens::kAsText).size();
  if (bytes > max_response_bytes_) {
    std::string message = fmt::format("tokens: {} tokens are {} bytes of text; expected at most {} (max_response_size)", call.tokens.size(), bytes, max_response_bytes_);
    return reply->send(openai_response({400, "invalid_request_error", {std::move(message), "tokens", "invalid_value"}}));
  }
  const std::string prompt = words.decode(call.tokens, text::SpecialTokens::kAsText);
  reply->send({200, "application/json", "{\"prompt\":" + text::json_text(prompt) + "}", {}});
}

HttpResponse unknown_path(int status, std::string_view message) {
  const char* code = status == 404 ? "unknown_url" : status == 405 ? "method_not_allowed" : status == 413 ? "request_too_large" : "invalid_value";
  return openai_response({status, "invalid_request_error", {std::string(message), "", code}});
}

using Handler = std::function<void(const HttpRequest&, const Reply&)>;

// For "*": other methods than POST are refused in OpenAI's words.
Handler only_post(Handler handle) {
  return [handle = std::move(handle)](const HttpRequest& request, const Reply& reply) {
    if (request.method == "POST") return handle(request, reply);
    HttpResponse response = openai_response({405, "invalid_request_error", {request.method + " is not allowed here; expected POST", "", "method_not_allowed"}});
    response.headers.emplace_back("Allow", "POST");
    reply->send(std::move(response));
  };
}

}  // namespace

std::vector<HttpRoute> openai_routes(const frontend::ModelRegistry& registry, CallPool& pool, size_t max_response_bytes) {
  const auto api = std::make_shared<OpenAiApi>(registry, pool, max_response_bytes);
  const auto on_pool = [api](void (OpenAiApi::*call)(const HttpRequest&, const Reply&), const char* prompt_field = "messages") {
    return only_post([api, call, prompt_field](const HttpRequest& request, const Reply& reply) {
      api->run(request, reply, prompt_field, [api, call, reply](const HttpRequest& kept) { (api.get()->*call)(kept, reply); });
    });
  };
  const Handler complete = on_pool(&OpenAiApi::complete, "prompt");
  const Handler chat = on_pool(&OpenAiApi::chat);
  const Handler list = [api](const HttpRequest&, const Reply& reply) { api->list_models(reply); };
  const Handler describe = [api](const HttpRequest& request, const Reply& reply) { api->describe_model(request.parameters.at("model_name"), reply); };
  const char* text = "Text of a prompt, as OpenAI's API has it; server-sent events with \"stream\": true";
  const char* answer = "The answer in a conversation, as OpenAI's API has it";
  const std::string torchserve = "/predictions/{model_name}/{model_version}";  // where its vLLM handler has the same
  std::vector<HttpRoute> routes = {
      {"GET", "/v1/models", "The models, as OpenAI lists them", {}, list},
      {"GET", "/v1/models/{model_name}", "One model", {}, describe},
      {"*", "/v1/completions", text, {}, complete},
      {"*", "/v1/chat/completions", answer, {}, chat},
      {"*", "/tokenize", "Token ids of a text or a conversation", {}, on_pool(&OpenAiApi::tokenize)},
      {"*", "/detokenize", "Text of token ids", {}, on_pool(&OpenAiApi::detokenize)},
  };
  for (HttpRoute& route : routes) route.refuse = &key_refusal;
  routes.push_back({"*", torchserve + "/v1/models", "The models, as OpenAI lists them", {}, list});
  routes.push_back({"*", torchserve + "/v1/completions", text, {}, complete});
  routes.push_back({"*", torchserve + "/v1/chat/completions", answer, {}, chat});
  return routes;
}

std::vector<HttpRefusals> openai_refusals() {
  std::vector<HttpRefusals> all;
  for (const char* prefix : {"/v1/", "/tokenize", "/detokenize"}) all.push_back({prefix, &unknown_path, &key_refusal});
  return all;
}

}  // namespace penstock::rpc
