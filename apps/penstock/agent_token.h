#pragma once
// The secret that the front door and its agents share.
#include <string>

#include "base/error.h"

namespace penstock {

// The file's text without spaces around it. Whoever has it can have ranks started on the agents' machines, or take part in serving, so others than the
// file's owner must not be able to read it. `asked_by`: the flag or key that names the file, for messages.
// Errors: kNotFound; kInvalidArgument (shorter than 32 characters, not printable, readable by others).
[[nodiscard]] Result<std::string> read_agent_token(const std::string& file, const std::string& asked_by);

}  // namespace penstock
