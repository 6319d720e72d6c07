#pragma once
// What the keywords of a JSON schema say of single values. For the .cpp files of this folder.
#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::text {

using SchemaJson = nlohmann::ordered_json;  // members are generated in the schema's order

enum SchemaType : int {
  kObjectType = 1, kArrayType = 2, kStringType = 4, kNumberType = 8, kIntegerType = 16, kBooleanType = 32, kNullType = 64,
  kAllTypes = kObjectType | kArrayType | kStringType | kNumberType | kBooleanType | kNullType,  // integers are numbers
};

// kInvalidArgument "PATH: ...".
template <typename... Args>
[[nodiscard]] Error schema_error(const std::string& path, fmt::format_string<Args...> format, Args&&... args) {
  return error(Code::kInvalidArgument, "{}: {}", path, fmt::format(format, std::forward<Args>(args)...));
}
[[nodiscard]] Error unsupported_keyword(const std::string& path, std::string_view keyword, std::string_view hint = "");

// A SchemaType of the value; of a whole number kIntegerType.
[[nodiscard]] SchemaType type_of(const nlohmann::json& value);

// The types that a schema allows: those of `type`, or those of which other keywords speak, or all. Throws schema_error.
[[nodiscard]] int types_of(const SchemaJson& schema, const std::string& path);

// Throws for keywords that are known and not supported where they change what is valid.
void refuse_unsupported_keywords(const SchemaJson& schema, int types, const std::string& path);

// Throws when a keyword beside `keyword` also says what is valid, but for those in `but`.
void refuse_siblings(const SchemaJson& schema, std::string_view keyword, std::initializer_list<std::string_view> but, const std::string& path);

// A count >= 0, as of minLength. nullopt: absent.
[[nodiscard]] std::optional<int64_t> count_of(const SchemaJson& schema, const char* keyword, const std::string& path);

// The least and the largest whole number that minimum, maximum and their exclusive forms allow.
struct IntegerBounds {
  std::optional<int64_t> minimum, maximum;
};
[[nodiscard]] IntegerBounds integer_bounds(const SchemaJson& schema, const std::string& path);

// The regular expression of a format. Throws for one that is not supported.
[[nodiscard]] std::string_view format_pattern(const SchemaJson& schema, const std::string& path);

}  // namespace penstock::text
