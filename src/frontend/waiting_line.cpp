#include "frontend/waiting_line.h"

namespace penstock::frontend {

Result<Priority> parse_priority(std::string_view name) {
  if (name == "low") return Priority::kLow;
  if (name == "normal") return Priority::kNormal;
  if (name == "high") return Priority::kHigh;
  return error(Code::kInvalidArgument, "x-priority: expected low, normal or high, found '{}'", name.substr(0, 200));
}

}  // namespace penstock::frontend
