#pragma once
// Whether two JSON schemas have no value in common, as those of a "oneOf" must. For the .cpp files of this folder.
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "text/schema_types.h"

namespace penstock::text {

// Looks at types, at values of enum and const, and at those of members that both schemas require. It remembers what it has read of a schema.
//
// Threads: one. Ownership: the schemas outlive it and stay where they are.
class DisjointSchemas {
 public:
  // Follows "$ref".
  using Resolve = std::function<const SchemaJson&(const SchemaJson&)>;
  explicit DisjointSchemas(Resolve resolve) : resolve_(std::move(resolve)) {}

  // No value fits both; false: one might. Throws Error kInvalidArgument when all calls together have compared too much, and what `resolve` throws.
  [[nodiscard]] bool certain(const SchemaJson& a, const SchemaJson& b);

 private:
  using Values = std::optional<std::vector<nlohmann::json>>;  // of an enum or a const, sorted, each once; nullopt: neither

  [[nodiscard]] const SchemaJson& resolved(const SchemaJson& schema);
  [[nodiscard]] const Values& values_of(const SchemaJson& schema);
  [[nodiscard]] const std::vector<std::string>& required_of(const SchemaJson& schema);
  [[nodiscard]] bool differ_in_values(const SchemaJson& a, const SchemaJson& b);
  [[nodiscard]] int types_of_values(const SchemaJson& schema);
  void spend(size_t comparisons);

  const Resolve resolve_;
  std::map<const SchemaJson*, const SchemaJson*> resolved_;
  std::map<const SchemaJson*, Values> values_;
  std::map<const SchemaJson*, std::vector<std::string>> required_;  // sorted
  size_t spent_ = 0;
};

}  // namespace penstock::text
