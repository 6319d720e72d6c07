#include "text/disjoint_schemas.h"

#include <algorithm>

namespace penstock::text {
namespace {

constexpr size_t kMaxComparisons = 10'000'000;

// With their members sorted, so that their order does not matter.
nlohmann::json sorted(const SchemaJson& value) { return nlohmann::json::parse(value.dump()); }

// A type that an integer has, too, counts as one.
int overlapping(int types) { return types & kNumberType ? types | kIntegerType : types; }

}  // namespace

void DisjointSchemas::spend(size_t comparisons) {
  spent_ += comparisons;
  if (spent_ > kMaxComparisons) throw error(Code::kInvalidArgument, "oneOf: too many members and values to compare; expected fewer, or anyOf");
}

const SchemaJson& DisjointSchemas::resolved(const SchemaJson& schema) {
  const auto [place, fresh] = resolved_.try_emplace(&schema, nullptr);
  if (fresh) place->second = &resolve_(schema);
  return *place->second;
}

const DisjointSchemas::Values& DisjointSchemas::values_of(const SchemaJson& schema) {
  const auto [place, fresh] = values_.try_emplace(&schema);
  Values& values = place->second;
  if (!fresh || !schema.is_object()) return values;
  if (const auto found = schema.find("const"); found != schema.end()) {
    values.emplace({sorted(*found)});
    return values;
  }
  const auto found = schema.find("enum");
  if (found == schema.end() || !found->is_array()) return values;
  values.emplace();
  for (const SchemaJson& value : *found) values->push_back(sorted(value));
  std::sort(values->begin(), values->end());
  values->erase(std::unique(values->begin(), values->end()), values->end());
  return values;
}

const std::vector<std::string>& DisjointSchemas::required_of(const SchemaJson& schema) {
  const auto [place, fresh] = required_.try_emplace(&schema);
  const auto found = schema.find("required");
  if (!fresh || found == schema.end() || !found->is_array()) return place->second;
  for (const SchemaJson& name : *found) {
    if (name.is_string()) place->second.push_back(name.get<std::string>());
  }
  std::sort(place->second.begin(), place->second.end());
  return place->second;
}

bool DisjointSchemas::differ_in_values(const SchemaJson& a, const SchemaJson& b) {
  const Values &one = values_of(a), &two = values_of(b);
  if (!one || !two) return false;
  for (auto i = one->begin(), k = two->begin(); i != one->end() && k != two->end();) {
    spend(1);
    if (*i == *k) return false;
    *i < *k ? ++i : ++k;
  }
  return true;
}

int DisjointSchemas::types_of_values(const SchemaJson& schema) {
  const Values& values = values_of(schema);
  if (!values) return schema.contains("type") ? overlapping(types_of(schema, "#")) : static_cast<int>(kAllTypes | kIntegerType);
  spend(values->size());
  int types = 0;
  for (const nlohmann::json& value : *values) types |= type_of(value);
  return types;
}

bool DisjointSchemas::certain(const SchemaJson& first, const SchemaJson& second) {
  const SchemaJson &a = resolved(first), &b = resolved(second);
  if (a == false || b == false) return true;
  if (!a.is_object() || !b.is_object()) return false;
  if (differ_in_values(a, b)) return true;
  const int shared = types_of_values(a) & types_of_values(b);
  if (shared != kObjectType) return shared == 0;
  const auto members_a = a.find("properties"), members_b = b.find("properties");
  if (members_a == a.end() || members_b == b.end() || !members_a->is_object() || !members_b->is_object()) return false;
  const auto &required_a = required_of(a), &required_b = required_of(b);
  for (const auto& [name, member] : members_a->items()) {
    spend(1);
    if (!std::binary_search(required_a.begin(), required_a.end(), name) || !std::binary_search(required_b.begin(), required_b.end(), name)) continue;
    spend(members_b->size());
    const auto other = members_b->find(name);
    if (other != members_b->end() && differ_in_values(resolved(member), resolved(*other))) return true;
  }
  return false;
}

}  // namespace penstock::text
