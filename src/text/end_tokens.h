#pragma once
// The tokens at which a model ends its text: often more than the one that its tokenizer names.
#include <cstdint>
#include <filesystem>
#include <vector>

namespace penstock::text {

// `eos_token_id` of generation_config.json, a number or a list, or where that says nothing, of config.json; empty when neither does. As transformers takes them.
// Throws Error kDataLoss, naming file and key.
[[nodiscard]] std::vector<int32_t> end_ids_of_folder(const std::filesystem::path& folder);

}  // namespace penstock::text
