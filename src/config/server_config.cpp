#include "config/server_config.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <regex>
#include <tuple>

#include "base/file.h"
#include "base/shown.h"
#include "config/fields.h"
#include "config/models_json.h"
#include "config/properties_reader.h"
#include "config/server_fields.h"
#include "config/url_rules.h"
#include "config/yaml_reader.h"

namespace penstock::config {
namespace {

// Replaces every $$NAME$$.
std::optional<Error> substitute(RawValue& value, const Environment& environment, const std::string& file) {
  std::string& text = value.items.at(0);
  for (size_t start = text.find("$$"); start != std::string::npos;) {
    const size_t end = text.find("$$", start + 2);
    if (end == std::string::npos) break;
    const std::string name = text.substr(start + 2, end - start - 2);
    const auto content = environment(name);
    if (!content) {
      return error(Code::kInvalidArgument, "{}key '{}': the environment variable {} is not set", place(file, value.line), value.key, name);
    }
    text.replace(start, end + 2 - start, *content);
    start = text.find("$$", start + content->size());
  }
  return std::nullopt;
}

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(" \t") - first + 1));
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> items;
  for (size_t start = 0; start <= text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    if (std::string item = trimmed(std::string_view(text).substr(start, comma - start)); !item.empty()) items.push_back(item);
    start = comma + 1;
  }
  return items;
}

// TorchServe's name of the environment variable that overrides a key.
std::string variable_of(const std::string& key) {
  std::string name = "TS_" + key;
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

// Gathers the sources in their order; what a key means in the end is for finish().
class Loader {
 public:
  std::optional<Error> add_file(const std::filesystem::path& path, const Environment& environment) {
    const std::string file = path.string();
    Result<std::string> text = read_file(path, kConfigFileLimit);
    if (!text) return text.error();
    Result<std::vector<RawValue>> values = parse_properties(*text, file);
    if (!values) return values.error();
    for (RawValue& value : *values) {
      if (auto problem = substitute(value, environment, file)) return problem;
    }
    pass_over_unknown(*values, file);
    folder_ = std::filesystem::absolute(path).parent_path();
    store_in_file_ = true;
    return add(*values, file);
  }

  std::optional<Error> add_variables(const Environment& environment) {
    if (!raw_.enable_envvars_config) return std::nullopt;
    const bool urls = raw_.use_env_allowed_urls;
    for (const Field& field : server_fields(config_, raw_)) {
      const std::string name = variable_of(field.key);
      const auto content = environment(name);
      if (!content || (name == "TS_ALLOWED_URLS" && !urls)) continue;
      if (auto problem = add_one(field.key, *content, "environment variable " + name)) return problem;
    }
    return std::nullopt;
  }

  std::optional<Error> add_override(const std::string& assignment) {
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
      return error(Code::kInvalidArgument, "--set: expected KEY=VALUE with a key of config.properties, found '{}'", assignment.substr(0, 200));
    }
    return add_one(trimmed(assignment.substr(0, equals)), trimmed(assignment.substr(equals + 1)), "--set");
  }

  Result<ServerConfig> finish() {
    if (auto problem = check()) return *problem;
    if (!trimmed(raw_.models).empty()) {
      auto models = parse_models(raw_.models);
      if (!models) return fail(Code::kInvalidArgument, "models", "{}", models.error().message());
      config_.models = std::move(*models);
    }
    for (const auto& [key, text, target] : {std::tuple("inference_address", &raw_.inference_address, &config_.inference_address),
                                            std::tuple("management_address", &raw_.management_address, &config_.management_address),
                                            std::tuple("metrics_address", &raw_.metrics_address, &config_.metrics_address)}) {
      if (text->empty()) continue;
      auto address = parse_http_address(*text);
      if (!address) return fail(address.error().code(), key, "{}", address.error().message());
      *target = *address;
    }
    if (auto problem = check_tls()) return *problem;
    if (auto problem = read_agent_address()) return *problem;
    if (places_.contains("disable_token_authorization")) config_.token_authorization = !raw_.disable_token_authorization;
    if (!trimmed(raw_.model_snapshot).empty()) {
      auto saved = parse_snapshot(raw_.model_snapshot);
      if (!saved) return fail(Code::kInvalidArgument, "model_snapshot", "{}", saved.error().message());
      config_.saved_models = std::move(*saved);
    }
    config_.allowed_urls = split_list(raw_.allowed_urls);
    config_.load_all_models = trimmed(raw_.load_models) == "all";
    if (!config_.load_all_models) config_.load_models = split_list(raw_.load_models);
    if (places_.contains("number_of_gpu")) config_.number_of_gpu = raw_.number_of_gpu;
    if (!config_.model_store.empty() && store_in_file_) {
      config_.model_store = (folder_ / config_.model_store).lexically_normal().string();
    }
    if (!config_.model_store.empty()) config_.settings["model_store"] = std::filesystem::absolute(config_.model_store).lexically_normal().string();
    return config_;
  }

 private:
  // Of a snapshot only: old ones lack keys, newer ones and TorchServe's have keys that we do not know.
  void pass_over_unknown(std::vector<RawValue>& values, const std::string& file) {
    const auto is_snapshot = [](const RawValue& value) { return value.key == "model_snapshot"; };
    if (std::none_of(values.begin(), values.end(), is_snapshot)) return;
    const auto fields = server_fields(config_, raw_);
    std::erase_if(values, [&](const RawValue& value) {
      const bool known = std::any_of(fields.begin(), fields.end(), [&](const Field& field) { return field.key == value.key; });
      if (!known) config_.notes.push_back(fmt::format("{}{}: passed over: not known here, and this is a snapshot", place(file, value.line), value.key.substr(0, 128)));
      return !known;
    });
  }

  std::optional<Error> add_one(const std::string& key, const std::string& content, const std::string& source) {
    RawValue value;
    value.key = key;
    value.items = {content};
    if (key == "model_store") store_in_file_ = false;
    return add({value}, source);
  }

  std::optional<Error> add(const std::vector<RawValue>& values, const std::string& source) {
    Result<Filled> filled = fill(server_fields(config_, raw_), values, source);
    if (!filled) return filled.error();
    for (const auto& [key, line] : filled->lines) places_[key] = place(source, line);
    for (const RawValue& value : values) config_.settings[value.key] = value.items.at(0);
    config_.notes.insert(config_.notes.end(), filled->notes.begin(), filled->notes.end());
    return std::nullopt;
  }

  template <typename... Args>
  [[nodiscard]] Error fail(Code code, const char* key, fmt::format_string<Args...> format, Args&&... args) const {
    return error(code, "{}key '{}': {}", places_.at(key), key, fmt::format(format, std::forward<Args>(args)...));
  }

  [[nodiscard]] std::optional<Error> check() const {
    for (const auto& [key, host] : {std::pair("grpc_inference_address", config_.grpc_inference_address),
                                    std::pair("grpc_management_address", config_.grpc_management_address)}) {
      if (!host.empty() && host.find_first_of("/ \t") == std::string::npos) continue;
      return fail(Code::kInvalidArgument, key, "expected a host name or an IP address such as 127.0.0.1, found '{}'", host);
    }
    if (auto rules = UrlRules::compile(split_list(raw_.allowed_urls)); !rules) {
      return fail(Code::kInvalidArgument, "allowed_urls", "{}", rules.error().message());
    }
    constexpr size_t kMaxExpression = 1000;  // bytes; std::regex compiles by recursion, and a long one overflows the stack
    if (const size_t bytes = config_.blacklist_env_vars.size(); bytes > kMaxExpression) {
      return fail(Code::kInvalidArgument, "blacklist_env_vars", "expected a regular expression of at most {} bytes, found {}", kMaxExpression, bytes);
    }
    try {
      (void)std::regex(config_.blacklist_env_vars);
    } catch (const std::regex_error&) {
      return fail(Code::kInvalidArgument, "blacklist_env_vars", "'{}' is not a regular expression", shown(config_.blacklist_env_vars));
    }
    return std::nullopt;
  }

  // What was asked to be encrypted or guarded must not be open.
  [[nodiscard]] std::optional<Error> check_tls() const {
    for (const auto& [key, asks] : {std::pair("inference_address", config_.inference_address.tls), std::pair("management_address", config_.management_address.tls),
                                    std::pair("metrics_address", config_.metrics_address.tls),
                                    std::pair("enable_grpc_ssl", config_.enable_grpc_ssl)}) {
      if (!asks || (!config_.certificate_file.empty() && !config_.private_key_file.empty())) continue;
      return fail(Code::kInvalidArgument, key, "TLS needs certificate_file and private_key_file, both PEM; for a try make them with\n  openssl req -x509 "
                  "-newkey rsa:2048 -nodes -days 365 -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem");
    }
    if (!config_.client_ca_file.empty() && !config_.uses_tls()) {
      return fail(Code::kInvalidArgument, "client_ca_file", "nothing here speaks TLS, so no client would be asked for a certificate; set "
                  "enable_grpc_ssl=true, and https:// in inference_address and management_address");
    }
    return std::nullopt;
  }

  // Who joins as an agent gets work, and sees what is asked of models: never just anybody.
  [[nodiscard]] std::optional<Error> read_agent_address() {
    if (raw_.agent_address.empty()) return std::nullopt;
    auto address = parse_http_address("http://" + raw_.agent_address);
    if (!address) return fail(Code::kInvalidArgument, "agent_address", "expected HOST:PORT, found '{}'", raw_.agent_address.substr(0, 200));
    const bool certificates = config_.enable_grpc_ssl && !config_.client_ca_file.empty();
    const bool open = config_.agent_without_token && is_loopback(address->host);
    if (config_.agent_token_file.empty() && !certificates && !open) {
      return fail(Code::kInvalidArgument, "agent_address", "agents must prove who they are: give agent_token_file, or enable_grpc_ssl=true with client_ca_file "
                  "(agent_without_token=true: only on 127.0.0.1)");
    }
    config_.agent_address = *address;
    return std::nullopt;
  }

  ServerConfig config_;
  RawServerConfig raw_;
  std::map<std::string, std::string> places_;  // by key: "FILE:LINE: " of its last value
  std::filesystem::path folder_;
  bool store_in_file_ = false;  // model_store, if given, was given by the file last
};

}  // namespace

Result<ServerConfig> load_server_config(const std::filesystem::path& file, const Environment& environment,
                                        const std::vector<std::string>& overrides) {
  Loader loader;
  if (!file.empty()) {
    if (auto problem = loader.add_file(file, environment)) return *problem;
  }
  if (auto problem = loader.add_variables(environment)) return *problem;
  for (const std::string& assignment : overrides) {
    if (auto problem = loader.add_override(assignment)) return *problem;
  }
  return loader.finish();
}

std::filesystem::path choose_config_file(const std::string& given, const Environment& environment, const std::filesystem::path& last_snapshot) {
  if (const auto from_environment = environment("TS_CONFIG_FILE"); from_environment && !from_environment->empty()) return *from_environment;
  if (!given.empty()) return given;
  if (!last_snapshot.empty()) return last_snapshot;
  std::error_code ignored;
  return std::filesystem::exists("config.properties", ignored) ? "config.properties" : "";
}

}  // namespace penstock::config
