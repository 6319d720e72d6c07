#include "frontend/access_keys.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/log.h"

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;

constexpr size_t kKeyBytes = 32;
constexpr size_t kMaxPeers = 4096;
constexpr const char* kDenied = "failed. Token either incorrect, expired, or not provided correctly";

std::string random_text() {
  std::array<unsigned char, kKeyBytes> bytes;
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t count = ::getrandom(bytes.data() + filled, bytes.size() - filled, 0);
    if (count < 0 && errno != EINTR) throw error(Code::kUnavailable, "cannot make a key: the kernel's random source fails: {}", std::strerror(errno));
    if (count > 0) filled += static_cast<size_t>(count);
  }
  // 6 bits a letter, lowest first: the order does not matter to random bits.
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string text;
  unsigned bits = 0, count = 0;
  for (const unsigned char byte : bytes) {
    bits |= static_cast<unsigned>(byte) << count;
    for (count += 8; count >= 6; count -= 6, bits >>= 6) text += kLetters[bits & 63];
  }
  return text + kLetters[bits & 63];
}

// Takes the same time for all texts of one length; the length of a key is no secret.
bool equal(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  volatile unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference = static_cast<unsigned char>(difference | (a[i] ^ b[i]));
  return difference == 0;
}

// "2026-01-31T23:59:59.123456Z".
std::string calendar_time_in(Clock::duration time) {
  const auto point = std::chrono::system_clock::now() + std::chrono::duration_cast<std::chrono::system_clock::duration>(time);
  const auto us = std::chrono::duration_cast<microseconds>(point.time_since_epoch()).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}Z", fmt::gmtime(static_cast<std::time_t>(us / 1000000)), us % 1000000);
}

Error file_error(const char* verb, const fs::path& file, int cause) {
  return error(Code::kUnavailable,
               "cannot {} {}, where clients find their tokens: {}; start in a folder that can be written, or with --disable-token-auth", verb,
               fs::absolute(file).string(), std::strerror(cause));
}

}  // namespace

std::optional<std::string_view> bearer_token(std::string_view authorization) {
  constexpr std::string_view kScheme = "Bearer";
  if (authorization.size() <= kScheme.size() || ::strncasecmp(authorization.data(), kScheme.data(), kScheme.size()) != 0) return std::nullopt;
  std::string_view token = authorization.substr(kScheme.size());
  const size_t first = token.find_first_not_of(' ');
  if (first == 0 || first == std::string_view::npos) return std::nullopt;
  token = token.substr(first, token.find_last_not_of(' ') + 1 - first);
  return token;
}

AccessKeys::AccessKeys(AccessKeyOptions options) : options_(std::move(options)), failures_(options_.failures_per_minute, kMaxPeers) {
  MutexLock lock(mutex_);
  keys_ = {make_key(), make_key(), make_key()};
  keys_.api.expires.reset();
}

AccessKeys::~AccessKeys() {
  MutexLock lock(file_mutex_);
  struct stat found{};
  const bool ours = ::lstat(options_.file.c_str(), &found) == 0 && std::pair<uint64_t, uint64_t>(found.st_dev, found.st_ino) == file_id_;
  if (ours) (void)::unlink(options_.file.c_str());
}

AccessKeys::Key AccessKeys::make_key() const {
  return {random_text(), options_.now() + options_.lifetime, calendar_time_in(options_.lifetime)};
}

void AccessKeys::write_file(const Keys& keys) {
  const auto entry = [](const Key& key) { return nlohmann::ordered_json{{"key", key.text}, {"expiration time", key.expiration_time}}; };
  const nlohmann::ordered_json json = {
      {"management", entry(keys.management)}, {"inference", entry(keys.inference)}, {"API", {{"key", keys.api.text}}}};
  const std::string text = json.dump(2) + "\n";
  const fs::path temporary = options_.file.string() + "." + random_text().substr(0, 12);
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) throw file_error("create", options_.file, errno);
  struct stat made{};
  bool good = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  good = good && ::fsync(fd) == 0 && ::fstat(fd, &made) == 0;
  good = good && ::rename(temporary.c_str(), options_.file.c_str()) == 0;
  const int cause = errno;
  ::close(fd);
  if (!good) {
    (void)::unlink(temporary.c_str());
    throw file_error("write", options_.file, cause);
  }
  file_id_ = {made.st_dev, made.st_ino};
}

bool AccessKeys::matches(KeySet accepted, std::string_view token, Clock::time_point now) const {
  bool found = false;
  for (const auto& [kind, key] : {std::pair(kManagementKey, &keys_.management), std::pair(kInferenceKey, &keys_.inference),
                                  std::pair(kApiKey, &keys_.api)}) {
    const bool good = equal(token, key->text) && (!key->expires || now < *key->expires);
    found = found || (good && (accepted & kind) != 0);
  }
  return found;
}

std::optional<Error> AccessKeys::check(KeySet accepted, std::string_view authorization, const std::string& peer) {
  if (accepted == kNoKey) return std::nullopt;
  const auto token = bearer_token(authorization);
  const Clock::time_point now = options_.now();
  const bool limited = options_.failures_per_minute > 0;
  bool newly_blocked = false;
  {
    MutexLock lock(mutex_);
    if (limited && failures_.blocked(peer, now)) {
      return error(Code::kResourceExhausted, "too many requests with wrong tokens came from {}; try again in a minute", peer);
    }
    if (token && matches(accepted, *token, now)) return std::nullopt;
    newly_blocked = limited && failures_.add(peer, now);
  }
  if (newly_blocked) {
    spdlog::warn("{} has sent {} wrong tokens within a minute (token_failure_limit); its requests are refused until it pauses", peer,
                 options_.failures_per_minute);
  }
  return error(Code::kPermissionDenied, "Token {} {}", accepted == kApiKey ? "Authentication" : "Authorization", kDenied);
}

void AccessKeys::publish() {
  MutexLock one_at_a_time(file_mutex_);
  Keys keys;
  {
    MutexLock lock(mutex_);
    keys = keys_;
  }
  write_file(keys);
}

void AccessKeys::renew(KeySet kind) {
  PENSTOCK_CHECK(kind == kManagementKey || kind == kInferenceKey, "kind is {}", kind);
  MutexLock one_at_a_time(file_mutex_);
  Keys keys;
  {
    MutexLock lock(mutex_);
    keys = keys_;
  }
  (kind == kManagementKey ? keys.management : keys.inference) = make_key();
  write_file(keys);
  MutexLock lock(mutex_);
  keys_ = std::move(keys);
}

}  // namespace penstock::frontend
