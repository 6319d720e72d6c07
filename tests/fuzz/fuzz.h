#pragma once
// What the targets share. Each file of this folder is one parser of bytes that come from outside; libFuzzer calls it with bytes of its own making.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <unistd.h>

#include "base/error.h"

namespace penstock::fuzz {

inline std::string_view text_of(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// An Error is an answer; anything else that leaves a parser is a finding.
template <typename Work>
int accept_errors(const Work& work) {
  try {
    work();
  } catch (const Error&) {
  }
  return 0;
}

// A folder in memory with one file, for parsers that open files themselves. The same one for every input of a process.
inline const std::filesystem::path& folder_with(const std::string& name, const uint8_t* data, size_t size) {
  static const std::filesystem::path folder = [] {
    auto path = std::filesystem::path("/dev/shm") / ("penstock-fuzz-" + std::to_string(::getpid()));
    std::filesystem::create_directories(path);
    return path;
  }();
  std::ofstream file(folder / name, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  return folder;
}

}  // namespace penstock::fuzz
