#include "config/python_settings.h"

#include <algorithm>
#include <cctype>

namespace penstock::config {
namespace {

bool flag(const ServerConfig& config, const char* key) {
  const auto found = config.settings.find(key);
  if (found == config.settings.end()) return true;
  std::string word = found->second;
  std::ranges::transform(word, word.begin(), [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  return word == "true";
}

}  // namespace

PythonSettings python_settings(const ServerConfig& config) {
  PythonSettings settings;
  settings.decode_input_request = flag(config, "decode_input_request");
  settings.limit_max_image_pixels = flag(config, "limit_max_image_pixels");
  if (const auto found = config.settings.find("service_envelope"); found != config.settings.end()) settings.service_envelope = found->second;
  return settings;
}

}  // namespace penstock::config
