#include "agent_token.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "base/file.h"

namespace penstock {
namespace {

constexpr size_t kMaxBytes = 4096;
constexpr size_t kLeastCharacters = 32;
constexpr const char* kHowToMake = "make one with\n  (umask 077; openssl rand -hex 32 > agent_token)";

}  // namespace

Result<std::string> read_agent_token(const std::string& file, const std::string& asked_by) {
  const auto text = read_file(file, kMaxBytes);
  if (!text) return error(text.error().code(), "{}: {}; {}", asked_by, text.error().message(), kHowToMake);
  std::error_code failed;
  const auto mode = std::filesystem::status(file, failed).permissions();
  constexpr auto kOthers = std::filesystem::perms::group_all | std::filesystem::perms::others_all;
  if (failed || (mode & kOthers) != std::filesystem::perms::none) {
    return error(Code::kInvalidArgument, "{}: {}: others than its owner may use it; chmod 600 {}", asked_by, file, file);
  }
  const auto is_space = [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
  const auto first = std::find_if_not(text.value().begin(), text.value().end(), is_space);
  const auto last = std::find_if_not(text.value().rbegin(), text.value().rend(), is_space).base();
  std::string token = first < last ? std::string(first, last) : std::string();
  const bool printable = std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c <= '~'; });
  if (printable && token.size() >= kLeastCharacters) return token;
  return error(Code::kInvalidArgument, "{}: {}: expected at least {} printable characters without spaces, found {}{}; {}", asked_by, file, kLeastCharacters,
               token.size(), printable ? "" : " with others among them", kHowToMake);
}

}  // namespace penstock
