#include "frontend/management.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "frontend/model_description.h"

namespace penstock::frontend {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kPage = 100;  // models of one list at most
constexpr int kMostWorkers = 1024;
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

Management::Management(ManagementParts parts) : parts_(std::move(parts)), registry_(parts_.registry), config_(parts_.config) {
  if (!parts_.store) return;
  auto rules = std::move(config::UrlRules::compile(config_.allowed_urls)).value();
  DownloadLimits limits;
  limits.bytes = int64_t{config_.max_download_mb} << 20;
  limits.total = config_.download_timeout;
  limits.silence = std::min(limits.silence, limits.total);
  downloads_ = std::make_unique<ModelDownloads>(parts_.store->root(), std::move(rules), limits);
}

void Management::stop() {
  if (downloads_) downloads_->stop();
}

std::optional<ManagementAnswer> Management::refuse_url(const std::optional<std::string>& given) const {
  if (!given) return bad_request("Parameter url is required.");
  const std::string& url = *given;
  if (url.empty()) return not_found("empty url");
  if (url.size() > kMaxUrl) return bad_request(fmt::format("url: longer than {} bytes", kMaxUrl));
  if (climbs(url)) return not_found("Relative path is not allowed in url: " + url);
  if (!parts_.store) return bad_request("there is no model store to take models from; start the server with --model-store DIR");
  return std::nullopt;
}

// The model behind the request's url, which is fetched if need be; what was fetched for a model that is none is removed again.
Result<ModelSpec> Management::find_model(const RegisterRequest& request) {
  std::string file = *request.url;
  std::filesystem::path downloaded;
  if (file.find("://") != std::string::npos) {
    auto fetched = downloads_->fetch(file);
    if (!fetched) return fetched.error();
    downloaded = *fetched;
    file = downloaded.filename().string();
  }
  const auto read = [&]() -> Result<ModelSpec> {
    auto found = resolve_model(parts_.store, request.model_name + "=" + file);
    if (!found) return found.error().code() == Code::kNotFound ? error(Code::kNotFound, "Model not found at: {}: {}", file, found.error().message()) : found.error();
    found->url = *request.url;
    auto opened = parts_.archives.open(*found);
    if (!opened) return opened.error();
    return read_model_spec(*opened, config_.models, request.handler);
  };
  auto spec = read();
  if (spec) spec->downloaded = downloaded;
  std::error_code ignored;
  if (!spec && !downloaded.empty()) std::filesystem::remove(downloaded, ignored);
  return spec;
}

ManagementAnswer Management::register_model(const RegisterRequest& request) {
  if (!config_.enable_model_api) return api_disabled();
  if (auto refused = refuse_url(request.url)) return *refused;
  if (auto refused = refuse_runtime(request)) return *refused;
  if (request.s3_sse_kms) return refusal(501, Code::kUnimplemented, "NotImplementedException", "s3_sse_kms is not supported; fetch the archive by a signed URL");
  if (!request.model_name.empty()) {
    if (auto bad = check_model_name(request.model_name)) return bad_request(bad->message());
  }
  auto spec = find_model(request);
  if (!spec) return answer(spec.error());
  const ModelSpec found = *spec;
  ManagementAnswer added = add_model(std::move(*spec), request);
  if (!added.ok()) forget_download(found);
  return changed(std::move(added));
}

ManagementAnswer Management::add_model(ModelSpec spec, const RegisterRequest& request) {
  spec.config.override_with(request.settings);
  const int configured = spec.config.min_workers > 0 ? spec.config.min_workers : config_.default_workers_per_model;
  const int workers = request.initial_workers.value_or(configured);
  if (workers > kMostWorkers) return bad_request(fmt::format("initial_workers: expected at most {}, found {}", kMostWorkers, workers));
  if (workers > 0 && spec.config.startup_timeout == seconds(0)) return workers_failed("a startup_timeout of 0 leaves them no time to load the model");
  const int most = std::max(workers, spec.config.max_workers);
  auto model = registry_.add(std::move(spec), WorkerRange{workers, most});
  if (!model) return model.error().code() == Code::kAlreadyExists ? answer(model.error()) : workers_failed(model.error().message());
  return start_workers(*model, request.synchronous);
}

// An archive that was fetched goes with the model, unless another uses it.
void Management::forget_download(const ModelSpec& spec) const {
  if (spec.downloaded.empty()) return;
  for (const auto& other : registry_.models()) {
    if (other->spec().source == spec.downloaded) return;
  }
  std::error_code ignored;
  std::filesystem::remove(spec.downloaded, ignored);
}

ManagementAnswer Management::changed(ManagementAnswer answer) const {
  if (answer.ok() && parts_.on_changed) parts_.on_changed();
  return answer;
}

ManagementAnswer Management::start_workers(const std::shared_ptr<ServedModel>& model, bool synchronous) {
  if (model->range().min == 0) {
    return done(fmt::format("Model \"{}\" Version: {} registered with 0 initial workers. Use scale workers API to add workers for the model.",
                            model->name(), model->version()));
  }
  model->start();
  if (!synchronous) return done(kUnderWay, 202);
  // The groups' own startup timeout ends the wait; the slack is for their telling us so.
  const LoadOutcome outcome = model->wait_loaded(Deadline::after(model->startup_timeout() + seconds(10)));
  if (outcome.state == LoadState::kLoaded) {
    return done(fmt::format("Model \"{}\" Version: {} registered with {} initial workers", model->name(), model->version(), model->range().min));
  }
  const std::string why = outcome.failure ? outcome.failure->message() : "they are still loading";
  if (auto stays = registry_.remove(model->name(), model->version(), Deadline::after(seconds(0)))) spdlog::warn("{}", stays->message());
  return workers_failed(why);
}

ManagementAnswer Management::scale(const ScaleRequest& request) {
  auto model = registry_.find(request.model_name, request.version);
  if (!model) return answer(model.error());
  if (request.min_worker < 0) return internal(fmt::format("min_worker: expected at least 0, found {}", request.min_worker));
  const int max = request.max_worker.value_or(request.min_worker);
  if (max < request.min_worker) return bad_request(fmt::format("max_worker cannot be less than min_worker: found {} and {}", max, request.min_worker));
  if (max > kMostWorkers) return bad_request(fmt::format("min_worker, max_worker: expected at most {}, found {}", kMostWorkers, max));
  const int drain_s = request.timeout_s.value_or(static_cast<int>(config_.unregister_model_timeout.count()));
  const Deadline drain = drain_s < 0 ? Deadline::never() : Deadline::after(seconds(drain_s));
  if (auto failure = (*model)->scale({request.min_worker, max}, drain)) return workers_failed(failure->message());
  if (parts_.on_changed) parts_.on_changed();
  if (!request.synchronous) return done(kUnderWay, 202);
  const Deadline deadline = drain.is_never() ? drain : Deadline::after((*model)->startup_timeout() + seconds(drain_s) + seconds(10));
  const LoadOutcome outcome = (*model)->wait_loaded(deadline);
  if (outcome.failure) return workers_failed(outcome.failure->message());
  if (outcome.state == LoadState::kLoading) return done("Workers scaling in progress...", 206);
  std::string text = fmt::format("Workers scaled to {} for model: {}", request.min_worker, request.model_name);
  if (!request.version.empty()) text += ", version: " + request.version;
  return done(std::move(text));
}

ManagementAnswer Management::set_default(std::string_view name, std::string_view version) {
  if (version.empty()) return bad_request("model_version is required");
  if (auto failure = registry_.set_default(name, version)) return answer(*failure);
  return changed(done(fmt::format("Default version successfully updated for model \"{}\" to \"{}\"", name, version)));
}

ManagementAnswer Management::unregister(std::string_view name, std::string_view version) {
  if (!config_.enable_model_api) return api_disabled();
  const auto model = registry_.find(name, version);
  if (auto failure = registry_.remove(name, version, Deadline::after(config_.unregister_model_timeout))) return answer(*failure);
  if (model) forget_download(model.value()->spec());
  return changed(done(fmt::format("Model \"{}\" unregistered", name)));
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

ManagementAnswer Management::readiness(std::string_view name) const {
  auto model = registry_.find(name, "");
  if (!model) return answer(model.error());
  return done(Json{{"name", name}, {"ready", (*model)->serving()}}.dump(2) + "\n");
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
  return done(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace penstock::frontend
