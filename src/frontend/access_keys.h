#pragma once
// Token authorization as TorchServe's users know it: three keys in key_file.json, "Authorization: Bearer KEY", new keys through /token.
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "frontend/failure_limit.h"

namespace penstock::frontend {

// A set of keys, as bits.
using KeySet = unsigned;
inline constexpr KeySet kManagementKey = 1;
inline constexpr KeySet kInferenceKey = 2;
inline constexpr KeySet kApiKey = 4;  // makes new keys of the other two; never expires
inline constexpr KeySet kNoKey = 0;   // open to everybody

struct AccessKeyOptions {
  std::filesystem::path file = "key_file.json";  // TorchServe's name; in the working folder
  Clock::duration lifetime = std::chrono::minutes(60);
  int failures_per_minute = 60;                  // that one peer may have before nothing it sends is looked at; 0 = any number
  std::function<Clock::time_point()> now = &Clock::now;
};

// Each key is 256 bits of the kernel's random source, as URL-safe base64. Nothing but the file ever shows one.
//
// Threads: every method from any thread.
// Blocks:  publish() and renew() write a file; check() does not block.
// File:    mode 0600 from its creation, replaced as a whole, never written through a link; removed by the destructor if it is still ours.
class AccessKeys {
 public:
  // Nothing is written yet, so nobody has a key yet. A server that fails to start must not take another one's file away.
  explicit AccessKeys(AccessKeyOptions options);
  ~AccessKeys();
  AccessKeys(const AccessKeys&) = delete;
  AccessKeys& operator=(const AccessKeys&) = delete;

  // Throws Error kUnavailable naming the file and the cause.
  void publish() EXCLUDES(mutex_, file_mutex_);

  // Nullopt: the request may pass. Else kPermissionDenied in TorchServe's words, or kResourceExhausted for a peer that failed too often.
  // `accepted`: the keys that open it; with none it is open. `authorization`: the header's value, empty when it is absent.
  // `peer`: who is counted together: an address, a connection. Takes the same time whichever byte of a key is wrong.
  [[nodiscard]] std::optional<Error> check(KeySet accepted, std::string_view authorization, const std::string& peer) EXCLUDES(mutex_);

  // A new key, good for another lifetime; the old one is void once this returns. REQUIRES: kManagementKey or kInferenceKey.
  // Throws Error kUnavailable naming the file and the cause; then the old key stays.
  void renew(KeySet kind) EXCLUDES(mutex_, file_mutex_);

  [[nodiscard]] const std::filesystem::path& file() const { return options_.file; }

 private:
  struct Key {
    std::string text;
    std::optional<Clock::time_point> expires;
    std::string expiration_time;  // the same by the calendar, for the file
  };
  struct Keys {
    Key management, inference, api;
  };
  [[nodiscard]] Key make_key() const;
  void write_file(const Keys& keys) REQUIRES(file_mutex_);
  [[nodiscard]] bool matches(KeySet accepted, std::string_view token, Clock::time_point now) const REQUIRES(mutex_);

  const AccessKeyOptions options_;
  Mutex file_mutex_;  // one renewal at a time; taken before mutex_
  std::pair<uint64_t, uint64_t> file_id_ GUARDED_BY(file_mutex_);  // device and inode of what we wrote last
  Mutex mutex_;
  Keys keys_ GUARDED_BY(mutex_);
  FailureLimit failures_ GUARDED_BY(mutex_);
};

// The token of "Bearer TOKEN" (scheme in any case, spaces around the token allowed); nullopt for anything else.
[[nodiscard]] std::optional<std::string_view> bearer_token(std::string_view authorization);

}  // namespace penstock::frontend
