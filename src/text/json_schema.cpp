#include "text/json_schema.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "base/utf8.h"
#include "text/disjoint_schemas.h"
#include "text/json_grammar.h"
#include "text/json_input.h"
#include "text/regex_grammar.h"
#include "text/schema_types.h"

namespace penstock::text {
namespace {

using State = GrammarBuilder::State;
using Rule = GrammarBuilder::Rule;

constexpr int kMaxNesting = 64;

std::u32string code_points_of(std::string_view text) {  // REQUIRES: UTF-8
  std::u32string result;
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i++]);
    const int more = utf8_after(first).count;
    char32_t c = more == 0 ? first : first & (0x3F >> more);
    for (int k = 0; k < more; ++k) c = c << 6 | (static_cast<unsigned char>(text[i++]) & 0x3F);
    result += c;
  }
  return result;
}

// Each schema within the schema becomes a rule, once, however often it is referred to.
class SchemaCompiler {
 public:
  explicit SchemaCompiler(const SchemaJson& root) : root_(root), json_(grammar_) {}

  Grammar compile() {
    const Rule top = rule_of(root_, "#");
    while (!open_.empty()) {
      const Open next = open_.front();
      open_.pop_front();
      try {
        write(*next.schema, next.path, grammar_.start(next.rule), grammar_.end(next.rule));
      } catch (const Error& e) {
        if (e.message().starts_with("#")) throw;
        throw schema_error(next.path, "{}", e.message());
      }
    }
    return grammar_.build(top);
  }

 private:
  struct Open {  // a rule that is still to be written
    const SchemaJson* schema;
    std::string path;
    Rule rule;
  };

  Rule rule_of(const SchemaJson& schema, const std::string& path) {
    const auto [place, fresh] = rules_.try_emplace(&schema, -1);
    if (fresh) {
      place->second = grammar_.rule();
      open_.push_back({&schema, std::string(utf8_prefix(path, 200)), place->second});
    }
    return place->second;
  }

  const SchemaJson& referred(const SchemaJson& reference, const std::string& path) const {
    const std::string text = reference.is_string() ? reference.get<std::string>() : "";
    if (text == "#") return root_;
    if (!text.starts_with("#/")) throw schema_error(path, "$ref: expected a place in this schema, \"#/...\", found {}", utf8_prefix(reference.dump(), 64));
    try {
      return root_.at(SchemaJson::json_pointer(text.substr(1)));
    } catch (const SchemaJson::exception&) {
      throw schema_error(path, "$ref: there is no {} in this schema", utf8_prefix(text, 100));
    }
  }

  void write(const SchemaJson& schema, const std::string& path, State from, State to) {
    if (schema == true) return grammar_.call(from, json_.any_value(), to);
    if (schema == false) return;
    if (!schema.is_object()) throw schema_error(path, "expected a schema, found {}", schema.type_name());
    const int types = types_of(schema, path);
    refuse_unsupported_keywords(schema, types, path);
    if (const auto reference = schema.find("$ref"); reference != schema.end()) {
      refuse_siblings(schema, "$ref", {}, path);
      return grammar_.call(from, rule_of(referred(*reference, path), reference->get<std::string>()), to);
    }
    for (const char* keyword : {"anyOf", "oneOf", "allOf"}) {
      if (schema.contains(keyword)) return write_branches(schema, keyword, path, from, to);
    }
    if (schema.contains("const") || schema.contains("enum")) return write_values(schema, types, path, from, to);
    write_types(schema, types, path, from, to);
  }

  void write_branches(const SchemaJson& schema, const char* keyword, const std::string& path, State from, State to) {
    refuse_siblings(schema, keyword, {}, path);
    const SchemaJson& branches = schema.at(keyword);
    if (!branches.is_array() || branches.empty()) throw schema_error(path, "{}: expected a list of schemas", keyword);
    const bool all = std::string_view(keyword) == "allOf";
    if (all && branches.size() > 1) throw unsupported_keyword(path, keyword, "one schema in it is");
    if (std::string_view(keyword) == "oneOf") require_disjoint(branches, path);
    for (size_t i = 0; i < branches.size(); ++i) grammar_.call(from, rule_of(branches[i], fmt::format("{}/{}/{}", path, keyword, i)), to);
  }

  const SchemaJson& resolved(const SchemaJson& schema) const {
    const SchemaJson* at = &schema;
    for (int hops = 0; hops < 16 && at->is_object() && at->contains("$ref"); ++hops) at = &referred(at->at("$ref"), "oneOf");
    return *at;
  }

  void require_disjoint(const SchemaJson& branches, const std::string& path) {
    if (branches.size() > 64) throw schema_error(path, "oneOf: expected at most 64 schemas, found {}; anyOf takes more", branches.size());
    for (size_t i = 0; i < branches.size(); ++i) {
      for (size_t k = 0; k < i; ++k) {
        if (disjoint_.certain(branches[k], branches[i])) continue;
        throw schema_error(path, "oneOf: a value might fit both schema {} and schema {}; expected ones that differ in type or in a required constant, or anyOf", k, i);
      }
    }
  }

  void write_values(const SchemaJson& schema, int types, const std::string& path, State from, State to) {
    const char* keyword = schema.contains("const") ? "const" : "enum";
    refuse_siblings(schema, keyword, {"type"}, path);
    const SchemaJson& given = schema.at(keyword);
    const bool is_enum = std::string_view(keyword) == "enum";
    if (is_enum && !given.is_array()) throw schema_error(path, "enum: expected a list, found {}", given.type_name());
    for (const SchemaJson& value : is_enum ? given : SchemaJson::array({given})) {
      const SchemaType type = type_of(value);
      const bool fits = (types & type) || (type == kIntegerType && (types & kNumberType));
      if (fits) grammar_.skip(grammar_.literal(from, value.dump()), to);
    }
  }

  void write_types(const SchemaJson& schema, int types, const std::string& path, State from, State to) {
    if (types == kAllTypes && !schema.contains("type")) return grammar_.call(from, json_.any_value(), to);
    if (types & kObjectType) write_object(schema, path, from, to);
    if (types & kArrayType) write_array(schema, path, from, to);
    if (types & kStringType) write_string(schema, path, from, to);
    if (types & kNumberType) write_number(schema, path, from, to);
    else if (types & kIntegerType) write_integer(schema, path, from, to);
    if (types & kBooleanType) {
      for (const char* word : {"true", "false"}) grammar_.skip(grammar_.literal(from, word), to);
    }
    if (types & kNullType) grammar_.skip(grammar_.literal(from, "null"), to);
  }

  void write_integer(const SchemaJson& schema, const std::string& path, State from, State to) {
    const auto [minimum, maximum] = integer_bounds(schema, path);
    grammar_.skip(json_.integer(from, minimum, maximum), to);
  }

  void write_number(const SchemaJson& schema, const std::string& path, State from, State to) {
    bool negative_too = true;
    for (const char* bound : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
      const auto found = schema.find(bound);
      if (found == schema.end()) continue;
      if (std::string_view(bound) != "minimum" || !found->is_number() || found->get<double>() != 0) {
        throw unsupported_keyword(path, bound, "of numbers \"minimum\": 0 is, of integers every bound");
      }
      negative_too = false;
    }
    grammar_.skip(json_.number(from, negative_too), to);
  }

  void write_string(const SchemaJson& schema, const std::string& path, State from, State to) {
    const int64_t min = count_of(schema, "minLength", path).value_or(0);
    const auto max = count_of(schema, "maxLength", path);
    if (max && *max < min) throw schema_error(path, "maxLength: expected at least minLength, {}, found {}", min, *max);
    const bool has_pattern = schema.contains("pattern"), has_format = schema.contains("format");
    if (!has_pattern && !has_format) return grammar_.skip(json_.string(from, min, max), to);
    const char* keyword = has_pattern ? "pattern" : "format";
    for (const char* other : {"minLength", "maxLength", "format"}) {
      if (schema.contains(other) && std::string_view(other) != keyword) throw schema_error(path, "'{}' beside '{}' is not supported", other, keyword);
    }
    if (has_pattern && !schema.at("pattern").is_string()) throw schema_error(path, "pattern: expected a text");
    const std::string pattern = has_pattern ? schema.at("pattern").get<std::string>() : std::string(format_pattern(schema, path));
    const State open = grammar_.literal(from, "\"");
    try {
      const State close = add_regex(grammar_, open, pattern, has_pattern ? RegexMatch::kSearch : RegexMatch::kWhole, Spelling::kJsonString);
      grammar_.bytes(close, '"', '"', to);
    } catch (const Error& e) {
      throw schema_error(path, "pattern: {}", e.message());
    }
  }

  void write_array(const SchemaJson& schema, const std::string& path, State from, State to) {
    const int64_t min = count_of(schema, "minItems", path).value_or(0);
    auto max = count_of(schema, "maxItems", path);
    if (max && *max < min) throw schema_error(path, "maxItems: expected at least minItems, {}, found {}", min, *max);
    const auto prefix = schema.find("prefixItems"), items = schema.find("items");
    const auto first = prefix == schema.end() ? int64_t{0} : static_cast<int64_t>(prefix->size());
    if (prefix != schema.end() && !prefix->is_array()) throw schema_error(path, "prefixItems: expected a list of schemas");
    if (items != schema.end() && items->is_array()) throw unsupported_keyword(path, "items", "a list of schemas is called prefixItems now");
    if (items != schema.end() && *items == false) {
      if (min > first) throw schema_error(path, "minItems: {} items, of which only {} may be there", min, first);
      max = std::min(max.value_or(first), first);
    }
    const auto item = [&](int64_t index) {
      if (index < first) return rule_of((*prefix)[static_cast<size_t>(index)], fmt::format("{}/prefixItems/{}", path, index));
      return items == schema.end() ? json_.any_value() : rule_of(*items, path + "/items");
    };
    grammar_.skip(json_.array(from, min, max, item, first), to);
  }

  // Members in the order of `properties`, then those that are only required, then others.
  void write_object(const SchemaJson& schema, const std::string& path, State from, State to) {
    std::vector<std::string> required;
    if (const auto found = schema.find("required"); found != schema.end()) {
      const bool texts = found->is_array() && std::all_of(found->begin(), found->end(), [](const SchemaJson& name) { return name.is_string(); });
      if (!texts) throw schema_error(path, "required: expected a list of texts");
      required = found->get<std::vector<std::string>>();
      std::sort(required.begin(), required.end());
      required.erase(std::unique(required.begin(), required.end()), required.end());
    }
    const auto properties = schema.find("properties"), additional = schema.find("additionalProperties");
    const bool more = additional != schema.end() && *additional != false;
    const auto other_rule = [&] { return more ? rule_of(*additional, path + "/additionalProperties") : json_.any_value(); };
    const bool closed = additional != schema.end() && !more;
    if (properties == schema.end() && required.empty() && additional == schema.end()) return grammar_.skip(json_.any_object(from), to);

    JsonGrammar::Members members = json_.open_object(from);
    std::vector<std::u32string> taken;
    const auto add = [&](const std::string& name, Rule rule, bool needed) {
      taken.push_back(code_points_of(name));
      const State key = grammar_.literal(json_.before_key(members), SchemaJson(name).dump());
      const JsonGrammar::Members after = {grammar_.state(), grammar_.state()};
      grammar_.skip(json_.value_after_key(key, rule), after.rest);
      if (!needed) {
        grammar_.skip(members.first, after.first);
        grammar_.skip(members.rest, after.rest);
      }
      members = after;
    };
    if (properties != schema.end()) {
      if (!properties->is_object()) throw schema_error(path, "properties: expected an object, found {}", properties->type_name());
      for (const auto& [name, member] : properties->items()) {
        const bool needed = std::binary_search(required.begin(), required.end(), name);
        add(name, rule_of(member, fmt::format("{}/properties/{}", path, name)), needed);
      }
    }
    for (const std::string& name : required) {
      if (properties != schema.end() && properties->contains(name)) continue;
      if (closed) throw schema_error(path, "required: {} is not among properties, and additionalProperties is false", utf8_prefix(SchemaJson(name).dump(), 64));
      add(name, other_rule(), true);
    }
    if (more) {
      // Behind states of their own, so that none of them is a step back.
      const JsonGrammar::Members open = {grammar_.state(), grammar_.state()};
      grammar_.skip(members.first, open.first);
      grammar_.skip(members.rest, open.rest);
      json_.more_members(open, taken, other_rule());
      members = open;
    }
    grammar_.skip(json_.close_object(members), to);
  }

  const SchemaJson& root_;
  GrammarBuilder grammar_;
  JsonGrammar json_;
  DisjointSchemas disjoint_{[this](const SchemaJson& schema) -> const SchemaJson& { return resolved(schema); }};
  std::map<const SchemaJson*, Rule> rules_;
  std::deque<Open> open_;
};

}  // namespace

Result<Grammar> schema_grammar(std::string_view schema) {
  if (schema.size() > kMaxSchemaBytes) return error(Code::kInvalidArgument, "expected at most {} bytes, found {}", kMaxSchemaBytes, schema.size());
  const Result<SchemaJson> root = parse_ordered_json(schema, "the schema", Code::kInvalidArgument, kMaxNesting);
  if (!root) return root.error();
  try {
    return SchemaCompiler(root.value()).compile();
  } catch (const Error& e) {
    return e;
  }
}

Grammar any_object_grammar() {
  GrammarBuilder grammar;
  JsonGrammar json(grammar);
  const GrammarBuilder::Rule top = grammar.rule();
  grammar.skip(json.any_object(grammar.start(top)), grammar.end(top));
  return grammar.build(top);
}

}  // namespace penstock::text
