#include "formats/weight_index.h"

#include <nlohmann/json.hpp>

namespace penstock::formats {
namespace {

nlohmann::json parse_object(std::string_view text, const std::string& file) {
  try {
    nlohmann::json json = nlohmann::json::parse(text);
    if (!json.is_object()) throw error(Code::kDataLoss, "{}: it holds a JSON {}; expected an object", file, json.type_name());
    return json;
  } catch (const nlohmann::json::parse_error& failed) {
    throw error(Code::kDataLoss, "{}: it is not JSON: error at byte {}", file, failed.byte);
  } catch (const nlohmann::json::exception& failed) {  // a number that no double holds
    throw error(Code::kDataLoss, "{}: it is not JSON: {}", file, failed.what());
  }
}

// (The name may be a link; Hugging Face's cache is made of them.)
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

}  // namespace

std::unordered_map<std::string, std::string> parse_weight_index(std::string_view text, const std::string& file) {
  const nlohmann::json index = parse_object(text, file);
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object()) throw error(Code::kDataLoss, "{}: it has no object 'weight_map'", file);
  std::unordered_map<std::string, std::string> file_of;
  for (const auto& [tensor, name] : weight_map->items()) {
    if (!name.is_string()) throw error(Code::kDataLoss, "{}: the file of tensor '{}' is not a string", file, tensor);
    if (!is_plain_file_name(name.get_ref<const std::string&>())) {
      throw error(Code::kDataLoss, "{}: tensor '{}' is said to be in '{}'; expected the name of a file in this folder", file, tensor, name.get_ref<const std::string&>());
    }
    file_of.emplace(tensor, name.get<std::string>());
  }
  return file_of;
}

}  // namespace penstock::formats
