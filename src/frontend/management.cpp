#include "frontend/management.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>
#include <utility>

#include "base/log.h"
#include "frontend/model_description.h"

namespace penstock::frontend {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kPage = 100;  // models of one list at most
constexpr size_t kMaxUrl = 4096;
constexpr const char* kUnderWay = "Processing worker updates...";

ManagementAnswer refusal(int http_status, Code code, std::string type, std::string message) {
  return {http_status, std::move(message), code, std::move(type)};
}

ManagementAnswer done(std::string text, int http_status = 200) { return {http_status, std::move(text), Code::kInternal, ""}; }

ManagementAnswer bad_request(std::string message) { return refusal(400, Code::kInvalidArgument, "BadRequestException", std::move(message)); }
ManagementAnswer not_found(std::string message) { return refusal(404, Code::kNotFound, "ModelNotFoundException", std::move(message)); }
ManagementAnswer internal(std::string message) { return refusal(500, Code::kInternal, "InternalServerException", std::move(message)); }
ManagementAnswer api_disabled() { return refusal(405, Code::kPermissionDenied, "MethodNotAllowedException", "Model API disabled"); }

// TorchServe's answer to an error of the registry.
ManagementAnswer answer(const Error& error) {
  switch (error.code()) {
    case Code::kNotFound: {
      const bool version = error.message().starts_with("Model version");
      return refusal(404, Code::kNotFound, version ? "ModelVersionNotFoundException" : "ModelNotFoundException", error.message());
    }
    case Code::kInvalidArgument: return bad_request(error.message());
    case Code::kAlreadyExists: return refusal(409, Code::kAlreadyExists, "ConflictStatusException", error.message());
    case Code::kFailedPrecondition: return refusal(403, Code::kFailedPrecondition, "InvalidModelVersionException", error.message());
    case Code::kUnimplemented: return refusal(501, Code::kUnimplemented, "NotImplementedException", error.message());
    default: return internal(error.message());
  }
}

ManagementAnswer workers_failed(const std::string& why) { return internal("Error while creating workers: " + why); }

std::optional<ManagementAnswer> refuse_runtime(const RegisterRequest& request) {
  constexpr std::array<std::string_view, 4> kRuntimes = {"", "python", "python3", "LSP"};
  std::string runtime = request.runtime;
  for (char& c : runtime) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const bool known = runtime == "lsp" || std::find(kRuntimes.begin(), kRuntimes.end(), runtime) != kRuntimes.end();
  if (!known) return bad_request(fmt::format("Invalid RuntimeType value: {}; expected python, python3 or LSP", request.runtime.substr(0, 200)));
  return std::nullopt;
}

}  // namespace

// Only folders of the model store can be registered; the rest is told apart, so that clients see TorchServe's answers.
std::optional<ManagementAnswer> Management::refuse_url(const std::string& url) const {
  if (url.empty()) return bad_request("Parameter url is required.");
  if (url.size() > kMaxUrl) return bad_request(fmt::format("url: longer than {} bytes", kMaxUrl));
  if (url.find("..") != std::string::npos) return not_found("Relative path is not allowed in url: " + url);
  if (url.find("://") != std::string::npos) {
    const auto allows = [&](const std::string& expression) { return std::regex_match(url, std::regex(expression)); };
    if (std::any_of(config_.allowed_urls.begin(), config_.allowed_urls.end(), allows)) {
      return refusal(501, Code::kUnimplemented, "NotImplementedException", "fetching models from a URL is not supported yet; put a folder into the model store");
    }
    return not_found(fmt::format("Given URL {} does not match any allowed URL(s)", url));
  }
  if (!store_) return bad_request("there is no model store to take models from; start the server with --model-store DIR");
  return std::nullopt;
}

ManagementAnswer Management::register_model(const RegisterRequest& request) {
  if (!config_.enable_model_api) return api_disabled();
  if (auto refused = refuse_url(request.url)) return *refused;
  if (auto refused = refuse_runtime(request)) return *refused;
  const std::string name = request.model_name.empty() ? std::filesystem::path(request.url).stem().string() : request.model_name;
  if (auto bad = check_model_name(name)) return bad_request(bad->message());
  auto folder = resolve_model(store_, name + "=" + request.url);
  if (!folder) {
    if (folder.error().code() != Code::kNotFound) return answer(folder.error());
    return not_found(fmt::format("Model not found at: {}: {}", request.url, folder.error().message()));
  }
  auto spec = read_model_spec(*folder, config_.models, request.handler);
  if (!spec) return answer(spec.error());
  spec->config.override_with(request.settings);
  const int configured = spec->config.min_workers > 0 ? spec->config.min_workers : config_.default_workers_per_model;
  const int workers = request.initial_workers.value_or(configured);
  auto model = registry_.add(*spec, WorkerRange{workers, std::max(workers, spec->config.max_workers)});
  if (!model) return model.error().code() == Code::kResourceExhausted ? workers_failed(model.error().message()) : answer(model.error());
  const std::string version = (*model)->version();
  if (workers == 0) {
    return done(fmt::format("Model \"{}\" Version: {} registered with 0 initial workers. Use scale workers API to add workers for the model.",
                            name, version));
  }
  (*model)->start();
  if (!request.synchronous) return done(kUnderWay, 202);
  return wait_registered(*model);
}

ManagementAnswer Management::wait_registered(const std::shared_ptr<ServedModel>& model) {
  // The groups' own startup timeout ends the wait; the slack is for their telling us so.
  const LoadState state = model->wait_loaded(Deadline::after(model->startup_timeout() + seconds(10)));
  if (state == LoadState::kLoaded) {
    return done(fmt::format("Model \"{}\" Version: {} registered with {} initial workers", model->name(), model->version(), model->range().min));
  }
  const std::string why = state == LoadState::kFailed ? model->load_failure().message() : "they are still loading";
  if (auto stays = registry_.remove(model->name(), model->version(), Deadline::after(seconds(0)))) spdlog::warn("{}", stays->message());
  return workers_failed(why);
}

ManagementAnswer Management::scale(const ScaleRequest& request) {
  auto model = registry_.find(request.model_name, request.version);
  if (!model) return answer(model.error());
  if (request.min_worker < 0) return internal(fmt::format("min_worker: expected at least 0, found {}", request.min_worker));
  const int max = request.max_worker.value_or(request.min_worker);
  if (max < request.min_worker) return bad_request(fmt::format("max_worker cannot be less than min_worker: found {} and {}", max, request.min_worker));
  constexpr int kMost = 1024;
  if (request.min_worker > kMost) return bad_request(fmt::format("min_worker: expected at most {}, found {}", kMost, request.min_worker));
  const int drain_s = request.timeout_s.value_or(static_cast<int>(config_.unregister_model_timeout.count()));
  const Deadline drain = drain_s < 0 ? Deadline::never() : Deadline::after(seconds(drain_s));
  if (auto failure = (*model)->scale({request.min_worker, max}, drain)) return workers_failed(failure->message());
  if (!request.synchronous) return done(kUnderWay, 202);
  const Deadline deadline = drain.is_never() ? drain : Deadline::after((*model)->startup_timeout() + seconds(drain_s + 10));
  const LoadState state = (*model)->wait_loaded(deadline);
  if (state == LoadState::kFailed) return workers_failed((*model)->load_failure().message());
  if (state == LoadState::kLoading) return done("Workers scaling in progress...", 206);
  std::string text = fmt::format("Workers scaled to {} for model: {}", request.min_worker, request.model_name);
  if (!request.version.empty()) text += ", version: " + request.version;
  return done(std::move(text));
}

ManagementAnswer Management::set_default(std::string_view name, std::string_view version) {
  if (version.empty()) return bad_request("model_version is required");
  if (auto failure = registry_.set_default(name, version)) return answer(*failure);
  return done(fmt::format("Default version successfully updated for model \"{}\" to \"{}\"", name, version));
}

ManagementAnswer Management::unregister(std::string_view name, std::string_view version) {
  if (!config_.enable_model_api) return api_disabled();
  if (auto failure = registry_.remove(name, version, Deadline::after(config_.unregister_model_timeout))) return answer(*failure);
  return done(fmt::format("Model \"{}\" unregistered", name));
}

ManagementAnswer Management::describe(std::string_view name, std::string_view version, bool customized) const {
  std::vector<std::shared_ptr<ServedModel>> models;
  if (version == "all") {
    auto all = registry_.versions(name);
    if (!all) return answer(all.error());
    models = std::move(*all);
  } else {
    auto model = registry_.find(name, version);
    if (!model) return answer(model.error());
    models.push_back(*model);
  }
  return done(describe_models(models, customized));
}

ManagementAnswer Management::list(int limit, int next_page_token) const {
  const size_t page = static_cast<size_t>(limit < 1 || limit > kPage ? kPage : limit);
  const auto models = registry_.defaults();
  const size_t first = std::min(models.size(), static_cast<size_t>(std::max(0, next_page_token)));
  const size_t last = std::min(models.size(), first + page);
  Json json = Json::object();
  if (last < models.size()) json["nextPageToken"] = std::to_string(last);
  json["models"] = Json::array();
  for (size_t i = first; i < last; ++i) {
    json["models"].push_back({{"modelName", models[i]->name()}, {"modelUrl", models[i]->spec().url}});
  }
  return done(json.dump(2) + "\n");
}

}  // namespace penstock::frontend
