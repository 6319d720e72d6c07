#pragma once
// Reads the keys of a config.json. Private to src/model.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"

namespace penstock::model {

// Keys of one object. A key that is absent or null has the value `absent`.
//
// Errors: throws kInvalidArgument "FILE: key 'KEY': expected …, found …"; the caller turns it into a Result.
class ConfigReader {
 public:
  // `prefix` stands before each key in messages: "rope_scaling.".
  ConfigReader(const nlohmann::json& object, std::string file, std::string prefix = "") : object_(object), file_(std::move(file)), prefix_(std::move(prefix)) {}

  [[nodiscard]] int64_t integer(const char* key, int64_t min, int64_t max, int64_t absent) const;
  [[nodiscard]] int64_t required_integer(const char* key, int64_t min, int64_t max) const;
  // Finite and > 0.
  [[nodiscard]] double positive(const char* key, double absent) const;
  [[nodiscard]] double required_positive(const char* key) const;
  [[nodiscard]] bool boolean(const char* key, bool absent) const;
  [[nodiscard]] std::string text(const char* key, const std::string& absent) const;
  // The first of a list where the file has one (eos_token_id may be several); -1 when absent.
  [[nodiscard]] int64_t token(const char* key) const;
  // The key must be absent or have this value: kUnimplemented otherwise.
  void only(const char* key, const nlohmann::json& value) const;

  // nullptr when absent or null.
  [[nodiscard]] const nlohmann::json* find(const char* key) const;
  // The object that the key holds. REQUIRES: find(key) is not null.
  [[nodiscard]] ConfigReader inside(const char* key) const;
  [[nodiscard]] const nlohmann::json& object() const { return object_; }

  [[nodiscard]] Error invalid(const std::string& what) const { return error(Code::kInvalidArgument, "{}: {}", file_, what); }
  [[nodiscard]] Error unimplemented(const std::string& what) const { return error(Code::kUnimplemented, "{}: {}", file_, what); }
  [[nodiscard]] std::string name(const std::string& key) const { return "'" + prefix_ + key + "'"; }

 private:
  [[nodiscard]] Error wrong(const char* key, const std::string& expected, const nlohmann::json& found) const;
  [[nodiscard]] Error missing(const char* key) const { return invalid("key " + name(key) + " is missing"); }

  const nlohmann::json& object_;
  const std::string file_, prefix_;
};

// A value as messages show it.
[[nodiscard]] std::string shown(const nlohmann::json& value);

}  // namespace penstock::model
