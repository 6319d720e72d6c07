#pragma once
// Logging: one line per event on stderr, "2026-01-02 03:04:05.678 I [program] text". Use spdlog's info/warn/error directly.
#include <spdlog/spdlog.h>

#include <string>

namespace penstock {

// Names the process in every line, e.g. "serve" or "train rank 2". Level from PENSTOCK_LOG (trace, debug, info, warn, error; default info).
void init_logging(const std::string& program);

}  // namespace penstock
