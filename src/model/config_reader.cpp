#include "model/config_reader.h"

#include <cmath>

namespace penstock::model {

using nlohmann::json;

std::string shown(const json& value) { return value.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 80); }

Error ConfigReader::wrong(const char* key, const std::string& expected, const json& found) const {
  return invalid(fmt::format("key {}: expected {}, found {}", name(key), expected, shown(found)));
}

const json* ConfigReader::find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

ConfigReader ConfigReader::inside(const char* key) const {
  const json& value = *find(key);
  if (!value.is_object()) throw wrong(key, "an object", value);
  return {value, file_, prefix_ + key + "."};
}

int64_t ConfigReader::integer(const char* key, int64_t min, int64_t max, int64_t absent) const {
  const json* value = find(key);
  if (value == nullptr) return absent;
  const bool whole = value->is_number_float() && std::abs(value->get<double>()) < 0x1p53 && value->get<double>() == std::floor(value->get<double>());  // 2048.0
  const bool fits = whole || (value->is_number_integer() && (!value->is_number_unsigned() || value->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)));
  if (!fits || value->get<int64_t>() < min || value->get<int64_t>() > max) throw wrong(key, fmt::format("an integer from {} to {}", min, max), *value);
  return value->get<int64_t>();
}

int64_t ConfigReader::required_integer(const char* key, int64_t min, int64_t max) const {
  if (find(key) == nullptr) throw missing(key);
  return integer(key, min, max, 0);
}

double ConfigReader::positive(const char* key, double absent) const {
  const json* value = find(key);
  if (value == nullptr) return absent;
  if (!value->is_number() || !std::isfinite(value->get<double>()) || value->get<double>() <= 0) throw wrong(key, "a number > 0", *value);
  return value->get<double>();
}

double ConfigReader::required_positive(const char* key) const {
  if (find(key) == nullptr) throw missing(key);
  return positive(key, 0);
}

bool ConfigReader::boolean(const char* key, bool absent) const {
  const json* value = find(key);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) throw wrong(key, "true or false", *value);
  return value->get<bool>();
}

std::string ConfigReader::text(const char* key, const std::string& absent) const {
  const json* value = find(key);
  if (value == nullptr) return absent;
  if (!value->is_string()) throw wrong(key, "text", *value);
  return value->get<std::string>();
}

int64_t ConfigReader::token(const char* key) const {
  const json* value = find(key);
  if (value != nullptr && value->is_array() && !value->empty()) value = &value->front();
  if (value == nullptr) return -1;
  if (!value->is_number_integer() || *value < 0 || *value > INT32_MAX) throw wrong(key, "a token id >= 0", *value);
  return value->get<int64_t>();
}

void ConfigReader::only(const char* key, const json& value) const {
  const json* found = find(key);
  if (found != nullptr && *found != value) {
    throw unimplemented(fmt::format("{} = {} is not supported; this version computes {}", prefix_ + key, shown(*found), shown(value)));
  }
}

}  // namespace penstock::model
