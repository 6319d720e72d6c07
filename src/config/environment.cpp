#include "config/environment.h"

#include <unistd.h>

#include <cstdlib>
#include <regex>
#include <string_view>
#include <utility>

namespace penstock::config {

Environment process_environment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  };
}

Environment fixed_environment(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  };
}

std::vector<std::string> variables_matching(const std::string& expression) {
  std::vector<std::string> names;
  if (expression.empty()) return names;
  const std::regex matches(expression);
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    std::string name(text.substr(0, text.find('=')));
    if (std::regex_match(name, matches)) names.push_back(std::move(name));
  }
  return names;
}

}  // namespace penstock::config
