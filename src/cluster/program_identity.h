#pragma once
// Which build of a program this process runs.
#include <string>

namespace penstock::cluster {

// The build id that the linker gave to this process's program, a hash of its content, in hexadecimal; "unknown" when it has none.
[[nodiscard]] std::string program_build_id();

}  // namespace penstock::cluster
