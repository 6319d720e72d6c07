#pragma once
// What config.properties says to TorchServe's Python worker.
#include <string>

#include "config/server_config.h"

namespace penstock::config {

struct PythonSettings {
  bool decode_input_request = true;    // handlers get JSON and text decoded; otherwise bytes
  bool limit_max_image_pixels = true;  // Pillow refuses images that are too large
  std::string service_envelope;        // takes requests apart and puts answers together; empty = none
};

// Their types were checked when the file was read.
[[nodiscard]] PythonSettings python_settings(const ServerConfig& config);

}  // namespace penstock::config
