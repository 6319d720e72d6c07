#pragma once
// Environment variables as a value that is passed in, so that tests need not change the process.
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace penstock::config {

// The variable's value; nullopt when it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// The process's own environment (getenv: safe while no thread changes it, and nothing here does).
[[nodiscard]] Environment process_environment();
// A fixed one, for tests.
[[nodiscard]] Environment fixed_environment(std::map<std::string, std::string> variables);

// Names of the process's own variables that the regular expression matches in full; an empty one matches none.
// REQUIRES: the expression was checked.
[[nodiscard]] std::vector<std::string> variables_matching(const std::string& expression);

}  // namespace penstock::config
