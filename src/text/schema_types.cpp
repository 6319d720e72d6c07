#include "text/schema_types.h"

#include <algorithm>
#include <cmath>

#include "base/utf8.h"

namespace penstock::text {
namespace {

struct NamedType {
  std::string_view name;
  SchemaType type;
};
constexpr NamedType kTypes[] = {{"object", kObjectType},   {"array", kArrayType},     {"string", kStringType}, {"number", kNumberType},
                                {"integer", kIntegerType}, {"boolean", kBooleanType}, {"null", kNullType}};

// Keywords that say what is valid, and of which types they speak.
struct Keyword {
  std::string_view name;
  int types;
  bool supported;
};
constexpr int kNumbers = kNumberType | kIntegerType;
constexpr Keyword kKeywords[] = {
    {"type", kAllTypes, true},
    {"enum", kAllTypes, true},
    {"const", kAllTypes, true},
    {"anyOf", kAllTypes, true},
    {"oneOf", kAllTypes, true},
    {"allOf", kAllTypes, true},
    {"$ref", kAllTypes, true},
    {"properties", kObjectType, true},
    {"required", kObjectType, true},
    {"additionalProperties", kObjectType, true},
    {"items", kArrayType, true},
    {"prefixItems", kArrayType, true},
    {"minItems", kArrayType, true},
    {"maxItems", kArrayType, true},
    {"minLength", kStringType, true},
    {"maxLength", kStringType, true},
    {"pattern", kStringType, true},
    {"format", kStringType, true},
    {"minimum", kNumbers, true},
    {"maximum", kNumbers, true},
    {"exclusiveMinimum", kNumbers, true},
    {"exclusiveMaximum", kNumbers, true},
    {"not", kAllTypes, false},
    {"if", kAllTypes, false},
    {"$dynamicRef", kAllTypes, false},
    {"$recursiveRef", kAllTypes, false},
    {"dependentSchemas", kObjectType, false},
    {"dependentRequired", kObjectType, false},
    {"dependencies", kObjectType, false},
    {"patternProperties", kObjectType, false},
    {"propertyNames", kObjectType, false},
    {"minProperties", kObjectType, false},
    {"maxProperties", kObjectType, false},
    {"unevaluatedProperties", kObjectType, false},
    {"unevaluatedItems", kArrayType, false},
    {"additionalItems", kArrayType, false},
    {"contains", kArrayType, false},
    {"minContains", kArrayType, false},
    {"maxContains", kArrayType, false},
    {"uniqueItems", kArrayType, false},
    {"multipleOf", kNumbers, false},
};

template <typename Json>
bool has_whole_value(const Json& number) {
  if (number.is_number_integer()) return true;
  const auto value = number.template get<double>();
  return value == std::floor(value);
}

// It is there, and says what everything satisfies.
bool says_nothing(std::string_view keyword, const SchemaJson& value) {
  if (keyword == "uniqueItems") return value == false;
  if (keyword == "minProperties" || keyword == "minContains") return value == 0;
  if (keyword == "unevaluatedProperties" || keyword == "unevaluatedItems" || keyword == "propertyNames" || keyword == "additionalItems") return value == true;
  if (keyword == "patternProperties" || keyword == "dependentSchemas" || keyword == "dependentRequired") return value.is_object() && value.empty();
  return false;
}

constexpr struct {
  std::string_view name, pattern;
} kFormats[] = {
    {"date", "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"},
    {"time", "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"},
    {"date-time", "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
                  "T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"ipv4", "((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"},
    {"email", "[a-zA-Z0-9_+-]{1,32}(\\.[a-zA-Z0-9_+-]{1,16}){0,2}@([a-zA-Z0-9]([a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?\\.){1,3}[a-zA-Z]{2,24}"},
    {"hostname", "[a-zA-Z0-9]([a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?(\\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?){0,4}"},
};

// A bound of whole numbers, rounded inwards; nullopt: absent.
std::optional<int64_t> bound_of(const SchemaJson& schema, const char* keyword, bool lower, bool exclusive, const std::string& path) {
  const auto found = schema.find(keyword);
  if (found == schema.end()) return std::nullopt;
  if (!found->is_number()) throw schema_error(path, "{}: expected a number, found {}", keyword, found->type_name());
  constexpr double kLimit = 1e18;
  const double value = found->get<double>();
  if (!(std::abs(value) < kLimit)) return value > 0 ? int64_t{1} << 60 : -(int64_t{1} << 60);  // beyond every integer that is generated
  const int64_t whole = found->is_number_integer() ? found->get<int64_t>() : static_cast<int64_t>(lower ? std::ceil(value) : std::floor(value));
  if (!exclusive || !has_whole_value(*found)) return whole;
  return lower ? whole + 1 : whole - 1;
}

template <typename Choose>
std::optional<int64_t> tighter(std::optional<int64_t> a, std::optional<int64_t> b, Choose choose) {
  if (!a || !b) return a ? a : b;
  return choose(*a, *b);
}

}  // namespace

Error unsupported_keyword(const std::string& path, std::string_view keyword, std::string_view hint) {
  return schema_error(path, "the keyword '{}' is not supported{}{}", utf8_prefix(keyword, 64), hint.empty() ? "" : "; ", hint);
}

SchemaType type_of(const nlohmann::json& value) {
  if (value.is_object()) return kObjectType;
  if (value.is_array()) return kArrayType;
  if (value.is_string()) return kStringType;
  if (value.is_boolean()) return kBooleanType;
  if (value.is_null()) return kNullType;
  return has_whole_value(value) ? kIntegerType : kNumberType;
}

int types_of(const SchemaJson& schema, const std::string& path) {
  const auto found = schema.find("type");
  int types = 0;
  if (found == schema.end()) {
    for (const Keyword& keyword : kKeywords) {
      if (keyword.types != kAllTypes && schema.contains(keyword.name)) types |= keyword.types;
    }
    return types == 0 ? kAllTypes : types & kNumberType ? types & ~kIntegerType : types;
  }
  const SchemaJson names = found->is_array() ? *found : SchemaJson::array({*found});
  for (const SchemaJson& name : names) {
    const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const NamedType& t) { return name == t.name; });
    if (type == std::end(kTypes)) throw schema_error(path, "type: expected object, array, string, number, integer, boolean or null, found {}", utf8_prefix(name.dump(), 64));
    types |= type->type;
  }
  if (types == 0) throw schema_error(path, "type: expected at least one type");
  return types;
}

void refuse_unsupported_keywords(const SchemaJson& schema, int types, const std::string& path) {
  for (const Keyword& keyword : kKeywords) {
    if (keyword.supported || !(keyword.types & types)) continue;
    const auto found = schema.find(keyword.name);
    if (found != schema.end() && !says_nothing(keyword.name, *found)) throw unsupported_keyword(path, keyword.name);
  }
}

void refuse_siblings(const SchemaJson& schema, std::string_view keyword, std::initializer_list<std::string_view> but, const std::string& path) {
  for (const Keyword& other : kKeywords) {
    if (other.name == keyword || std::find(but.begin(), but.end(), other.name) != but.end() || !schema.contains(other.name)) continue;
    throw schema_error(path, "'{}' beside '{}' is not supported", other.name, keyword);
  }
}

std::optional<int64_t> count_of(const SchemaJson& schema, const char* keyword, const std::string& path) {
  const auto found = schema.find(keyword);
  if (found == schema.end()) return std::nullopt;
  if (!found->is_number() || !has_whole_value(*found) || found->get<double>() < 0 || found->get<double>() > 1e9) {
    throw schema_error(path, "{}: expected an integer from 0 to 10^9, found {}", keyword, utf8_prefix(found->dump(), 64));
  }
  return static_cast<int64_t>(found->get<double>());
}

IntegerBounds integer_bounds(const SchemaJson& schema, const std::string& path) {
  const auto larger = [](int64_t a, int64_t b) { return std::max(a, b); };
  const auto smaller = [](int64_t a, int64_t b) { return std::min(a, b); };
  return {tighter(bound_of(schema, "minimum", true, false, path), bound_of(schema, "exclusiveMinimum", true, true, path), larger),
          tighter(bound_of(schema, "maximum", false, false, path), bound_of(schema, "exclusiveMaximum", false, true, path), smaller)};
}

std::string_view format_pattern(const SchemaJson& schema, const std::string& path) {
  const SchemaJson& format = schema.at("format");
  std::string names;
  for (const auto& known : kFormats) {
    if (format == known.name) return known.pattern;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", known.name);
  }
  throw schema_error(path, "format: {} is not supported; expected one of {}", utf8_prefix(format.dump(), 64), names);
}

}  // namespace penstock::text
