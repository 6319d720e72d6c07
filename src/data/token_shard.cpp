#include "data/token_shard.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/crc32.h"

namespace penstock::data {
namespace {

static_assert(std::endian::native == std::endian::little, "token shards are read and written as they lie in memory");

constexpr std::string_view kMagic = "PNSTKTOK";
constexpr uint32_t kVersion = 1;
constexpr size_t kBufferBytes = 1 << 20;
constexpr uint64_t kMostTokens = uint64_t{1} << 48;  // of a file; more would only overflow sums

template <typename T>
void put_number(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
T number_at(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

uint32_t crc_of(std::string_view bytes, uint32_t so_far = 0) { return crc32(std::as_bytes(std::span(bytes.data(), bytes.size())), so_far); }

Error failed(const char* verb, const std::string& path) { return error(Code::kDataLoss, "cannot {} {}: {}", verb, path, std::strerror(errno)); }

}  // namespace

uint32_t token_bytes_for(uint64_t vocab_size, bool has_context) { return vocab_size <= (has_context ? 1u << 15 : 1u << 16) ? 2 : 4; }

std::string encode_shard_header(const ShardHeader& h) {
  std::string bytes(kMagic);
  put_number(bytes, kVersion);
  put_number(bytes, h.token_bytes);
  for (const uint64_t value : {h.tokens, h.documents, h.text_bytes, h.fingerprint}) put_number(bytes, value);
  put_number(bytes, h.largest_id);
  put_number(bytes, h.payload_crc);
  put_number(bytes, uint32_t{h.has_context});
  put_number(bytes, crc_of(bytes));
  return bytes;
}

Result<ShardHeader> decode_shard_header(std::string_view bytes, const std::string& file) {
  if (bytes.size() < ShardHeader::kBytes) return error(Code::kDataLoss, "{}: {} bytes long, shorter than the header of a token shard", file, bytes.size());
  if (!bytes.starts_with(kMagic)) return error(Code::kDataLoss, "{}: no token shard: expected it to begin with \"{}\"", file, kMagic);
  if (const auto version = number_at<uint32_t>(bytes, 8); version != kVersion) {
    return error(Code::kDataLoss, "{}: token shard of version {}, expected {}; prepare the data again", file, version, kVersion);
  }
  const auto expected = number_at<uint32_t>(bytes, 60), found = crc_of(bytes.substr(0, 60));
  if (expected != found) return error(Code::kDataLoss, "{}: the header is damaged: checksum {:08x}, expected {:08x}", file, found, expected);
  ShardHeader h;
  h.token_bytes = number_at<uint32_t>(bytes, 12);
  h.tokens = number_at<uint64_t>(bytes, 16);
  h.documents = number_at<uint64_t>(bytes, 24);
  h.text_bytes = number_at<uint64_t>(bytes, 32);
  h.fingerprint = number_at<uint64_t>(bytes, 40);
  h.largest_id = number_at<uint32_t>(bytes, 48);
  h.payload_crc = number_at<uint32_t>(bytes, 52);
  h.has_context = number_at<uint32_t>(bytes, 56) != 0;
  const bool sane = (h.token_bytes == 2 || h.token_bytes == 4) && h.tokens <= kMostTokens && h.documents <= h.tokens && (h.tokens == 0) == (h.documents == 0);
  if (!sane) return error(Code::kDataLoss, "{}: the header contradicts itself: {} tokens of {} bytes in {} documents", file, h.tokens, h.token_bytes, h.documents);
  return h;
}

ShardWriter::ShardWriter(std::filesystem::path path, uint32_t token_bytes, bool has_context, uint64_t fingerprint) : path_(std::move(path)) {
  header_.token_bytes = token_bytes;
  header_.has_context = has_context;
  header_.fingerprint = fingerprint;
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0) throw failed("create", path_.string());
  buffer_.assign(ShardHeader::kBytes, '\0');  // until finish(), so that a torn file is no shard
}

ShardWriter::~ShardWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void ShardWriter::add_document(std::span<const uint32_t> tokens, uint64_t text_bytes) {
  PENSTOCK_CHECK(!tokens.empty(), "a document without tokens");
  starts_.push_back(header_.tokens);
  header_.tokens += tokens.size();
  header_.text_bytes += text_bytes;
  ++header_.documents;
  std::string bytes;
  bytes.reserve(tokens.size() * header_.token_bytes);
  for (const uint32_t token : tokens) {
    header_.largest_id = std::max(header_.largest_id, token & ~kNoTarget);
    if (header_.token_bytes == 4) {
      put_number(bytes, token);
    } else {
      put_number(bytes, static_cast<uint16_t>(token | (token & kNoTarget) >> 16));
    }
  }
  put(bytes);
}

void ShardWriter::finish() {
  put(std::string(header_.starts_offset() - ShardHeader::kBytes - header_.tokens * header_.token_bytes, '\0'));
  put({reinterpret_cast<const char*>(starts_.data()), starts_.size() * sizeof(uint64_t)});
  flush();
  const std::string header = encode_shard_header(header_);
  if (::pwrite(fd_, header.data(), header.size(), 0) != static_cast<ssize_t>(header.size())) throw failed("write", path_.string());
  if (::fsync(fd_) != 0) throw failed("fsync", path_.string());
}

void ShardWriter::put(std::string_view bytes) {
  header_.payload_crc = crc_of(bytes, header_.payload_crc);
  buffer_ += bytes;
  if (buffer_.size() >= kBufferBytes) flush();
}

void ShardWriter::flush() {
  for (std::string_view left = buffer_; !left.empty();) {
    const ssize_t written = ::write(fd_, left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw failed("write", path_.string());
    left.remove_prefix(static_cast<size_t>(written));
  }
  buffer_.clear();
}

Result<Shard> Shard::open(const std::filesystem::path& path) {
  Shard shard(path.string(), ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (shard.fd_ < 0 && errno == ENOENT) return error(Code::kNotFound, "{}: no such file", shard.path_);
  struct stat info {};
  if (shard.fd_ < 0 || ::fstat(shard.fd_, &info) != 0) return failed("open", shard.path_);
  shard.identity_ = identity_of(info);
  std::string bytes(std::min<uint64_t>(ShardHeader::kBytes, shard.identity_.bytes), '\0');
  try {
    shard.read_bytes(0, std::as_writable_bytes(std::span(bytes)));
  } catch (const Error& e) {
    return e;
  }
  const auto header = decode_shard_header(bytes, shard.path_);
  if (!header) return header.error();
  shard.header_ = header.value();
  if (shard.identity_.bytes != shard.header_.file_bytes()) {
    return error(Code::kDataLoss, "{}: expected {} bytes as its header says, found {}; it was cut short or is not wholly copied", shard.path_,
                 shard.header_.file_bytes(), shard.identity_.bytes);
  }
  return shard;
}

Shard::Shard(Shard&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), header_(other.header_), identity_(other.identity_) {}

Shard& Shard::operator=(Shard&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(header_, other.header_);
  std::swap(identity_, other.identity_);
  return *this;
}

Shard::~Shard() {
  if (fd_ >= 0) ::close(fd_);
}

Shard::Identity Shard::identity_of(const struct ::stat& info) {
  return {static_cast<uint64_t>(info.st_dev), static_cast<uint64_t>(info.st_ino), static_cast<uint64_t>(info.st_size),
          int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
}

// By name: a removed file could still be read, but the run could not go on after a restart, and the other ranks may see another file.
void Shard::require_unchanged() const {
  struct stat info {};
  if (::stat(path_.c_str(), &info) != 0) throw error(Code::kDataLoss, "{}: gone while it was in use: {}", path_, std::strerror(errno));
  const Identity now = identity_of(info);
  if (now.bytes != identity_.bytes) throw error(Code::kDataLoss, "{}: changed while it was in use: {} bytes, {} when it was opened", path_, now.bytes, identity_.bytes);
  if (now != identity_) throw error(Code::kDataLoss, "{}: changed while it was in use: replaced or written to since it was opened", path_);
}

void Shard::read_bytes(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t got = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw failed("read", path_);
    if (got == 0) throw error(Code::kDataLoss, "{}: ends at byte {}, expected at least {} more; it was cut short while it was in use", path_, offset, out.size());
    out = out.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
}

void Shard::read(uint64_t first, std::span<uint32_t> out) const {
  PENSTOCK_CHECK(first + out.size() <= header_.tokens, "{}: tokens {} to {} of {}", path_, first, first + out.size(), header_.tokens);
  require_unchanged();
  const uint64_t offset = ShardHeader::kBytes + first * header_.token_bytes;
  if (header_.token_bytes == 4) {
    read_bytes(offset, std::as_writable_bytes(out));
  } else {
    std::vector<uint16_t> narrow(out.size());
    read_bytes(offset, std::as_writable_bytes(std::span(narrow)));
    const uint32_t flag = header_.has_context ? 0x8000u : 0u;
    for (size_t i = 0; i < out.size(); ++i) out[i] = (narrow[i] & ~flag) | (narrow[i] & flag) << 16;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    const uint32_t id = header_.has_context ? out[i] & ~kNoTarget : out[i];
    if (id > header_.largest_id) {
      throw error(Code::kDataLoss, "{}: token {} is {}, expected at most {} as its header says; `penstock data verify` tells what is damaged", path_, first + i, id,
                  header_.largest_id);
    }
  }
}

void Shard::read_starts(uint64_t first, std::span<uint64_t> out) const {
  PENSTOCK_CHECK(first + out.size() <= header_.documents, "{}: documents {} to {} of {}", path_, first, first + out.size(), header_.documents);
  require_unchanged();
  read_bytes(header_.starts_offset() + first * 8, std::as_writable_bytes(out));
  for (const uint64_t start : out) {
    if (start >= header_.tokens) throw error(Code::kDataLoss, "{}: a document starts at token {} of {}", path_, start, header_.tokens);
  }
}

void Shard::verify(const std::function<void(uint64_t)>& progress) const {
  std::vector<std::byte> block(kBufferBytes);
  uint32_t crc = 0;
  for (uint64_t offset = ShardHeader::kBytes; offset < header_.file_bytes();) {
    const auto part = std::span(block).first(std::min<uint64_t>(block.size(), header_.file_bytes() - offset));
    read_bytes(offset, part);
    crc = crc32(part, crc);
    offset += part.size();
    progress(part.size());
  }
  if (crc != header_.payload_crc) throw error(Code::kDataLoss, "{}: checksum {:08x}, expected {:08x}; prepare the data again", path_, crc, header_.payload_crc);
}

}  // namespace penstock::data
