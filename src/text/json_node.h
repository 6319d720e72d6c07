#pragma once
// A value of a JSON file that knows its place, so that every complaint names the file and the key. For the .cpp files of this folder.
#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>

#include "base/error.h"

namespace penstock::text {

// Reading methods throw Error kDataLoss "FILE: KEY: expected ..., found ...".
// Lifetime: the document outlives its nodes.
class JsonNode {
 public:
  JsonNode(const nlohmann::json& document, std::string file) : value_(&document), file_(std::move(file)) {}

  // Absent when this is no object, has no such key or null there.
  [[nodiscard]] JsonNode operator[](const char* key) const;
  // REQUIRES: a list that long.
  [[nodiscard]] JsonNode operator[](size_t index) const;
  [[nodiscard]] bool present() const { return value_ != nullptr; }
  explicit operator bool() const { return present(); }

  [[nodiscard]] const nlohmann::json& value() const { return *value_; }  // REQUIRES: present()
  [[nodiscard]] bool is_string() const { return present() && value_->is_string(); }
  [[nodiscard]] bool is_object() const { return present() && value_->is_object(); }
  [[nodiscard]] const std::string& text() const;
  [[nodiscard]] int64_t number() const;
  [[nodiscard]] double real() const;
  [[nodiscard]] const nlohmann::json& object() const;
  [[nodiscard]] size_t list_size() const;

  // When absent, the other value.
  [[nodiscard]] bool flag(bool otherwise) const;
  [[nodiscard]] std::string text_or(const char* otherwise) const { return present() ? text() : otherwise; }

  [[nodiscard]] std::string where() const { return key_.empty() ? file_ : file_ + ": " + key_; }
  [[nodiscard]] Error wrong(const std::string& expected) const;
  // kUnimplemented: "FILE: KEY: `what` is not supported".
  [[nodiscard]] Error unsupported(const std::string& what) const;

 private:
  JsonNode(const nlohmann::json* value, std::string file, std::string key) : value_(value), file_(std::move(file)), key_(std::move(key)) {}
  const nlohmann::json* value_;
  std::string file_, key_;
};

// A JSON file of at most 256 MiB. Errors: kNotFound, kInvalidArgument (too large), kDataLoss.
[[nodiscard]] Result<nlohmann::json> read_json_file(const std::filesystem::path& path);

}  // namespace penstock::text
