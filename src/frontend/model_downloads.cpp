#include "frontend/model_downloads.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <system_error>
#include <tuple>
#include <utility>

#include "base/log.h"
#include "frontend/archive.h"
#include "frontend/model_store.h"

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPartialPrefix = ".penstock-download-";
constexpr size_t kMaxUrl = 4096;

// Without the query, which may hold a signature.
std::string shown(const std::string& url) { return url.substr(0, std::min(url.find('?'), size_t{300})); }

Error failed(const std::string& url, std::string_view why) {
  return error(Code::kInvalidArgument, "Failed to download archive from: {}: {}", shown(url), why);
}

// A URL taken apart.
struct UrlParts {
  std::string scheme;  // lower case
  std::string path;    // decoded
};

std::optional<UrlParts> parse_url(const std::string& url) {
  const auto odd = [](char c) { return static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7F || c == '\\' || c == '#'; };
  if (url.size() > kMaxUrl || std::any_of(url.begin(), url.end(), odd)) return std::nullopt;
  const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> parsed(curl_url(), &curl_url_cleanup);
  if (curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), CURLU_DISALLOW_USER) != CURLUE_OK) return std::nullopt;
  UrlParts parts;
  for (const auto& [part, flags, target] : {std::tuple(CURLUPART_SCHEME, 0u, &parts.scheme), std::tuple(CURLUPART_PATH, unsigned{CURLU_URLDECODE}, &parts.path)}) {
    char* text = nullptr;
    if (curl_url_get(parsed.get(), part, &text, flags) != CURLUE_OK) return std::nullopt;
    *target = text;
    curl_free(text);
  }
  return parts;
}

// The name under which an archive is stored; empty: the URL names none.
std::string archive_name(const UrlParts& url) {
  std::string name = url.path.substr(url.path.rfind('/') + 1);
  return is_archive_name(name) && !check_model_name(name) ? name : "";
}

// A file without its final name, which goes with this object unless it got one.
class PartialFile {
 public:
  explicit PartialFile(const fs::path& store) {
    std::string pattern = (store / (std::string(kPartialPrefix) + "XXXXXX")).string();
    fd_ = ::mkostemp(pattern.data(), O_CLOEXEC);
    path_ = pattern;
    if (fd_ < 0) throw error(Code::kInternal, "cannot write into the model store {}: {}", store.string(), std::strerror(errno));
    (void)::flock(fd_, LOCK_EX);  // tells sweepers that somebody writes it
    (void)::fchmod(fd_, 0644);
  }
  ~PartialFile() {
    ::unlink(path_.c_str());
    ::close(fd_);
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  [[nodiscard]] int fd() const { return fd_; }
  // A hard link, not a rename: it does not replace what is there.
  [[nodiscard]] std::optional<Error> keep_as(const fs::path& path) const {
    if (::fsync(fd_) == 0 && ::link(path_.c_str(), path.c_str()) == 0) return std::nullopt;
    if (errno == EEXIST) return error(Code::kInternal, "Model file already exists: {}", path.filename().string());
    return error(Code::kInternal, "cannot make {}: {}", path.string(), std::strerror(errno));
  }

 private:
  fs::path path_;
  int fd_ = -1;
};

// What one transfer shares with curl's callbacks.
struct Transfer {
  CURL* curl;
  int fd;
  int64_t left;  // bytes
  const std::atomic<bool>& stopping;
  std::string problem = {};  // why the callback ended it
};

size_t on_bytes(char* bytes, size_t, size_t size, void* opaque) {
  auto& transfer = *static_cast<Transfer*>(opaque);
  long status = 0;
  curl_easy_getinfo(transfer.curl, CURLINFO_RESPONSE_CODE, &status);
  if (status >= 300) return size;  // the page beside a redirect
  if (static_cast<int64_t>(size) > transfer.left) {
    transfer.problem = "it is larger than the limit (max_download_mb)";
    return 0;
  }
  transfer.left -= static_cast<int64_t>(size);
  for (size_t done = 0; done < size;) {
    const ssize_t written = ::write(transfer.fd, bytes + done, size - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      transfer.problem = std::string("the model store: ") + std::strerror(errno);
      return 0;
    }
    done += static_cast<size_t>(written);
  }
  return size;
}

int on_progress(void* opaque, curl_off_t, curl_off_t, curl_off_t, curl_off_t) { return static_cast<Transfer*>(opaque)->stopping.load() ? 1 : 0; }

void set_options(CURL* curl, const std::string& url, Transfer& transfer, const DownloadLimits& limits, Deadline deadline) {
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, url.starts_with("file:") ? "file" : "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);  // each hop is checked before it is made
  curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(milliseconds(limits.connect).count()));
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(std::max(milliseconds(1), deadline.remaining()).count()));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, static_cast<long>(limits.silence.count()));
  curl_easy_setopt(curl, CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(limits.bytes));
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "penstock");
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &on_bytes);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &on_progress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
}

// Files of fetches whose process is gone.
void sweep(const fs::path& store) {
  std::error_code failed;
  for (auto entry = fs::directory_iterator(store, failed); !failed && entry != fs::directory_iterator(); entry.increment(failed)) {
    if (!entry->path().filename().string().starts_with(kPartialPrefix)) continue;
    const int fd = ::open(entry->path().c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) continue;
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) ::unlink(entry->path().c_str());
    ::close(fd);
  }
}

}  // namespace

bool climbs(const std::string& url) {
  std::string plain;
  for (size_t i = 0; i < url.size(); ++i) {
    const bool dot = url[i] == '%' && i + 2 < url.size() && url[i + 1] == '2' && (url[i + 2] == 'e' || url[i + 2] == 'E');
    plain += dot ? '.' : url[i];
    if (dot) i += 2;
  }
  return plain.find("..") != std::string::npos;
}

ModelDownloads::ModelDownloads(fs::path store, config::UrlRules rules, DownloadLimits limits)
    : store_(std::move(store)), rules_(std::move(rules)), limits_(limits) {
  curl_global_init(CURL_GLOBAL_DEFAULT);
  sweep(store_);
}

std::optional<Error> ModelDownloads::refuse(const std::string& url) const {
  if (climbs(url)) return error(Code::kNotFound, "Relative path is not allowed in url: {}", shown(url));
  if (!rules_.allow(url)) return error(Code::kNotFound, "Given URL {} does not match any allowed URL(s)", shown(url));
  return std::nullopt;
}

Result<fs::path> ModelDownloads::fetch(const std::string& url) {
  if (auto refused = refuse(url)) return *refused;
  const auto parts = parse_url(url);
  if (!parts || (parts->scheme != "http" && parts->scheme != "https" && parts->scheme != "file")) {
    return failed(url, "expected an http, https or file URL without user, password and fragment");
  }
  const std::string name = archive_name(*parts);
  if (name.empty()) return failed(url, "expected the URL's path to end in the name of a .mar, .tar.gz, .tgz or .zip file");
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(store_ / name, ignored))) return error(Code::kInternal, "Model file already exists: {}", name);
  if (parts->scheme == "file" && !fs::is_regular_file(parts->path, ignored)) return failed(url, "there is no such file");
  const PartialFile partial(store_);
  if (auto problem = transfer(url, partial.fd())) return *problem;
  if (auto problem = partial.keep_as(store_ / name)) return *problem;
  spdlog::info("fetched {} into the model store", shown(url));
  return store_ / name;
}

std::optional<Error> ModelDownloads::transfer(std::string url, int fd) const {
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(), &curl_easy_cleanup);
  const Deadline deadline = Deadline::after(limits_.total);
  const std::string first = url;
  for (int hop = 0; hop <= limits_.redirects; ++hop) {
    Transfer transfer{curl.get(), fd, limits_.bytes, stopping_};
    set_options(curl.get(), url, transfer, limits_, deadline);
    const CURLcode ended = curl_easy_perform(curl.get());
    if (stopping_.load()) return Error(Code::kUnavailable, "the server is shutting down");
    long status = 0;
    curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
    if (!transfer.problem.empty()) return failed(first, transfer.problem);
    if (ended == CURLE_HTTP_RETURNED_ERROR) return failed(first, fmt::format("the server answered {}", status));
    if (ended == CURLE_FILESIZE_EXCEEDED) return failed(first, "it is larger than the limit (max_download_mb)");
    if (ended == CURLE_OPERATION_TIMEDOUT) {
      return failed(first, fmt::format("no connection within {} s, nothing came for {} s, or it took longer than {} s (download_timeout)",
                                       limits_.connect.count(), limits_.silence.count(), limits_.total.count()));
    }
    if (ended != CURLE_OK) return failed(first, curl_easy_strerror(ended));
    if (status == 200 || url.starts_with("file:")) return std::nullopt;
    char* next = nullptr;
    curl_easy_getinfo(curl.get(), CURLINFO_REDIRECT_URL, &next);
    if (!next) return failed(first, fmt::format("the server answered {}; expected 200", status));
    url = next;
    if (auto refused = refuse(url)) return error(refused->code(), "{} leads elsewhere: {}", shown(first), refused->message());
    const auto parts = parse_url(url);
    if (!parts || (parts->scheme != "http" && parts->scheme != "https")) return failed(first, "it leads to what is no http or https URL");
  }
  return failed(first, fmt::format("more than {} redirects", limits_.redirects));
}

}  // namespace penstock::frontend
