#pragma once
// What the targets share. Each file of this folder is one parser of bytes that come from outside; libFuzzer calls it with bytes of its own making.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>

#include "base/error.h"

namespace penstock::fuzz {

inline std::string_view text_of(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// The first line, without its end, and what follows: inputs of two parts.
inline std::pair<std::string_view, std::string_view> first_line(std::string_view text) {
  const size_t end = std::min(text.find('\n'), text.size());
  return {text.substr(0, end), text.substr(std::min(text.size(), end + 1))};
}

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
