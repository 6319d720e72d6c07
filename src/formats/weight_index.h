#pragma once
// model.safetensors.index.json: which of a Hugging Face directory's files has which tensor.
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/error.h"

namespace penstock::formats {

// Files by tensor. Their names are plain ones: an index may not lead out of its folder.
// Throws Error kDataLoss "FILE: ...", naming byte or tensor.
[[nodiscard]] std::unordered_map<std::string, std::string> parse_weight_index(std::string_view text, const std::string& file);

}  // namespace penstock::formats
