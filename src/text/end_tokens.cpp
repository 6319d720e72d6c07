#include "text/end_tokens.h"

#include "text/json_node.h"
#include "text/vocabulary.h"

namespace penstock::text {
namespace {

int32_t id_in(const JsonNode& node) {
  if (!node.value().is_number_integer() || node.number() < 0 || node.number() >= kMaxVocabulary) throw node.wrong("the id of a token, or a list of them");
  return static_cast<int32_t>(node.number());
}

}  // namespace

std::vector<int32_t> end_ids_of_folder(const std::filesystem::path& folder) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    const auto document = read_json_file(folder / name);
    if (!document && document.error().code() == Code::kNotFound) continue;
    const JsonNode node = JsonNode(document.value(), (folder / name).string())["eos_token_id"];
    if (!node) continue;
    if (!node.value().is_array()) return {id_in(node)};
    std::vector<int32_t> ids;
    for (size_t i = 0; i < node.list_size(); ++i) ids.push_back(id_in(node[i]));
    return ids;
  }
  return {};
}

}  // namespace penstock::text
