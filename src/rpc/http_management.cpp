#include "rpc/http_management.h"

#include <cctype>
#include <charconv>
#include <exception>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "text/json_input.h"

namespace penstock::rpc {
namespace {

using frontend::ManagementAnswer;
using Json = nlohmann::ordered_json;
using Reply = std::shared_ptr<HttpReply>;

// The parameters of one call: the path's, the query's and, weakest, those of the body: a JSON object, or a form (a=1&b=2).
class Parameters {
 public:
  explicit Parameters(const HttpRequest& request) : request_(request) {
    const size_t first = request.body.find_first_not_of(" \t\r\n");
    if (first == std::string::npos) return;
    // Told apart by their looks: curl -d says "form" of JSON, too.
    if (const char c = request.body[first]; c == '{' || c == '[') read_json();
    else read_form(std::string_view(request.body).substr(first));
  }
  // What is wrong with the body.
  [[nodiscard]] const std::optional<Error>& problem() const { return problem_; }

  // nullopt: not given.
  [[nodiscard]] std::optional<std::string> find(const std::string& name) const {
    for (const auto* values : {&request_.parameters, &request_.query, &form_}) {
      if (const auto found = values->find(name); found != values->end()) return found->second;
    }
    const auto found = json_.is_object() ? json_.find(name) : json_.end();
    if (found == json_.end() || found->is_null()) return std::nullopt;
    return found->is_string() ? found->get<std::string>() : found->dump();
  }
  [[nodiscard]] std::string text(const std::string& name) const { return find(name).value_or(""); }
  // As in TorchServe, a number that cannot be read is as good as none.
  [[nodiscard]] std::optional<int> number(const std::string& name) const {
    const std::string value = text(name);
    int parsed = 0;
    const auto [end, failed] = std::from_chars(value.data(), value.data() + value.size(), parsed);
    if (value.empty() || failed != std::errc() || end != value.data() + value.size()) return std::nullopt;
    return parsed;
  }
  [[nodiscard]] std::optional<int> positive(const std::string& name) const {
    const auto value = number(name);
    return value && *value > 0 ? value : std::nullopt;
  }
  // As in TorchServe: "true" in any case ("True" is what Python's clients send), and anything else is false.
  [[nodiscard]] bool flag(const std::string& name, bool otherwise) const {
    std::string value = text(name);
    for (char& c : value) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return value.empty() ? otherwise : value == "true";
  }

 private:
  void read_json() {
    auto json = text::parse_json(request_.body, "the body", Code::kInvalidArgument);
    if (json) json_ = std::move(*json);
    if (!json) problem_ = json.error();
    else if (!json_.is_object()) problem_ = error(Code::kInvalidArgument, "the body: expected a JSON object, found {}", text::shown(json_));
  }
  void read_form(std::string_view body) {
    auto values = body.find('=') == std::string_view::npos ? std::nullopt : decode_query(body);
    if (values) form_ = std::move(*values);
    else problem_ = Error(Code::kInvalidArgument, "the body: expected a JSON object or a form (name=value&name=value)");
  }

  const HttpRequest& request_;
  std::map<std::string, std::string> form_;
  nlohmann::json json_;
  std::optional<Error> problem_;
};

std::optional<seconds> as_seconds(std::optional<int> number) { return number ? std::optional(seconds(*number)) : std::nullopt; }

ManagementAnswer register_model(frontend::Management& management, const Parameters& given) {
  frontend::RegisterRequest request;
  request.url = given.find("url");
  request.model_name = given.text("model_name");
  request.handler = given.text("handler");
  request.runtime = given.text("runtime");
  if (const auto workers = given.number("initial_workers"); workers && *workers >= 0) request.initial_workers = workers;
  request.settings.batch_size = given.positive("batch_size");
  request.settings.max_batch_delay_ms = given.positive("max_batch_delay");
  request.settings.response_timeout = as_seconds(given.positive("response_timeout"));
  request.settings.startup_timeout = as_seconds(given.positive("startup_timeout"));
  if (given.number("startup_timeout") == 0) request.settings.startup_timeout = seconds(0);
  request.s3_sse_kms = given.flag("s3_sse_kms", false);
  request.synchronous = given.flag("synchronous", true);
  return management.register_model(request);
}

ManagementAnswer scale(frontend::Management& management, const Parameters& given) {
  frontend::ScaleRequest request;
  request.model_name = given.text("model_name");
  request.version = given.text("model_version");
  request.min_worker = given.number("min_worker").value_or(1);
  request.max_worker = given.number("max_worker");
  request.timeout_s = given.number("timeout");
  request.synchronous = given.flag("synchronous", false);
  return management.scale(request);
}

ManagementAnswer list(frontend::Management& management, const Parameters& given) {
  return management.list(given.number("limit").value_or(100), given.number("next_page_token").value_or(0));
}

// JSON stays as it is; a sentence becomes {"status": ...}.
HttpResponse to_response(const ManagementAnswer& answer) {
  if (!answer.ok()) return error_response(answer.http_status, answer.type, answer.text);
  const bool is_json = answer.text.starts_with('{') || answer.text.starts_with('[');
  return {answer.http_status, "application/json", is_json ? answer.text : Json{{"status", answer.text}}.dump(2) + "\n", {}};
}

using Call = ManagementAnswer (*)(frontend::Management&, const Parameters&);

HttpResponse run(frontend::Management& management, const HttpRequest& request, Call call) {
  try {
    const Parameters given(request);
    if (given.problem()) return error_response(*given.problem());
    return to_response(call(management, given));
  } catch (const Error& failure) {
    return error_response(failure);
  } catch (const std::exception& failure) {
    return error_response(Error(Code::kInternal, failure.what()));
  }
}

}  // namespace

std::vector<HttpRoute> management_routes(frontend::Management& management, CallPool& pool, const frontend::ModelRegistry& registry, ModelApi api) {
  const auto on_pool = [&management, &pool](Call call) {
    return [&management, &pool, call](const HttpRequest& request, const Reply& reply) {
      pool.run([&management, request, reply, call] { reply->send(run(management, request, call)); },
               [reply](const Error& why) { reply->send(error_response(why)); });
    };
  };
  const auto model_api = [&registry, api = std::move(api)](const HttpRequest& request, const Reply& reply) {
    auto model = registry.find(request.parameters.at("model_name"), "");
    model ? reply->send({200, "application/json", api.openapi(**model), {}}) : reply->send(error_response(model.error()));
  };
  const auto describe = on_pool([](frontend::Management& m, const Parameters& given) {
    return m.describe(given.text("model_name"), given.text("model_version"), given.flag("customized", false));
  });
  const auto unregister = on_pool([](frontend::Management& m, const Parameters& given) {
    return m.unregister(given.text("model_name"), given.text("model_version"));
  });
  const auto set_default = on_pool([](frontend::Management& m, const Parameters& given) {
    return m.set_default(given.text("model_name"), given.text("model_version"));
  });
  const auto ready = on_pool([](frontend::Management& m, const Parameters& given) { return m.readiness(given.text("model_name")); });
  const auto no_workflow = [](const HttpRequest&, const Reply& reply) {
    reply->send(error_response(501, "NotImplementedException", "workflows are not supported"));
  };
  const char *model = "/models/{model_name}", *version = "/models/{model_name}/{model_version}";
  const std::vector<std::string> scaling = {"min_worker", "max_worker", "timeout", "synchronous"};
  return {
      {"POST", "/models", "Register a model of the model store",
       {"url", "model_name", "handler", "runtime", "batch_size", "max_batch_delay", "initial_workers", "synchronous", "response_timeout",
        "startup_timeout"},
       on_pool(&register_model)},
      {"GET", "/models", "The models, in pages", {"limit", "next_page_token"}, on_pool(&list)},
      {"GET", model, "Description of the default version", {"customized"}, describe},
      {"GET", version, "Description of a version, or of all", {"customized"}, describe},
      {"OPTIONS", model, "Description of the model's API", {}, model_api},
      {"PUT", model, "Number of workers of the default version", scaling, on_pool(&scale)},
      {"PUT", version, "Number of workers", scaling, on_pool(&scale)},
      {"PUT", "/models/{model_name}/{model_version}/set-default", "Make a version the default one", {}, set_default},
      {"DELETE", model, "Unregister the only version", {}, unregister},
      {"DELETE", version, "Unregister a version", {}, unregister},
      {"GET", "/v1/models/{model_name}", "Whether the default version answers (KServe)", {}, ready},
      {"*", "/workflows", "Not implemented", {}, no_workflow},
      {"*", "/workflows/{workflow_name}", "Not implemented", {}, no_workflow},
  };
}

}  // namespace penstock::rpc
