#pragma once
// The keys of config.properties, one by one. Internal to config/.
#include <string>
#include <vector>

#include "config/fields.h"
#include "config/server_config.h"

namespace penstock::config {

// Values of keys whose meaning takes more than one variable.
struct RawServerConfig {
  std::string inference_address;
  std::string management_address;
  std::string metrics_address;
  std::string agent_address;
  std::string load_models;
  std::string models;
  std::string model_snapshot;
  std::string allowed_urls;
  int number_of_gpu = 0;
  bool disable_token_authorization = true;
  bool enable_envvars_config = false;
  bool use_env_allowed_urls = false;
  // Where keys that are not for the server leave their value.
  int64_t idle_integer = 0;
  bool idle_boolean = false;
  std::string idle_text;
};

// Every key that TorchServe knows, and ours. Both arguments must outlive the fields.
[[nodiscard]] std::vector<Field> server_fields(ServerConfig& config, RawServerConfig& raw);

}  // namespace penstock::config
