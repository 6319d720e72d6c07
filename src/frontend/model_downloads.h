#pragma once
// Fetches model archives into the model store, from where allowed_urls allows.
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "config/url_rules.h"

namespace penstock::frontend {

struct DownloadLimits {
  int64_t bytes = int64_t{64} << 30;
  int redirects = 5;
  seconds connect{10};
  seconds silence{30};   // without a byte
  seconds total{3600};   // redirects included
};

// Threads: fetch() from any thread, side by side; stop() from any other.
class ModelDownloads {
 public:
  // Removes what fetches of a server that was killed have left in the store.
  ModelDownloads(std::filesystem::path store, config::UrlRules rules, DownloadLimits limits);

  // Fetches the archive into the store, under the last part of the URL's path, and answers the file. http and https follow redirects, each of
  // which must be allowed as the URL itself must, before a byte is stored; file takes a regular file of this machine. The environment's proxies
  // (https_proxy, no_proxy) are used. Blocks up to limits.total.
  // Errors: kNotFound (not allowed, ".."), kInvalidArgument (no URL of an archive; it cannot be fetched whole and within limits), kInternal
  // ("Model file already exists"), kUnavailable (stop()). Then the store is as before.
  [[nodiscard]] Result<std::filesystem::path> fetch(const std::string& url);
  // Ends running fetches within a second, and all that come later.
  void stop() { stopping_.store(true); }

 private:
  [[nodiscard]] std::optional<Error> refuse(const std::string& url) const;
  [[nodiscard]] std::optional<Error> transfer(std::string url, int fd) const;

  const std::filesystem::path store_;
  const config::UrlRules rules_;
  const DownloadLimits limits_;
  std::atomic<bool> stopping_{false};
};

// A relative part in a URL, also an encoded one: "..", "%2e%2e".
[[nodiscard]] bool climbs(const std::string& url);

}  // namespace penstock::frontend
