#pragma once
// Token shards: documents as token ids, in files that can be read at any place without reading the rest.
//
// All numbers are little-endian. A file is, without gaps:
//   0   8  magic "PNSTKTOK"
//   8   4  version, 1
//  12   4  bytes of a token: 2 or 4
//  16   8  tokens
//  24   8  documents
//  32   8  bytes of text that the tokens stand for
//  40   8  fingerprint of the tokenizer (tokenizer_info.h)
//  48   4  largest token id
//  52   4  CRC-32 of everything after the header
//  56   4  1: the highest bit of a token says that it is context, never a target (chat); else 0
//  60   4  CRC-32 of bytes 0 ... 59
//  64      the tokens; zeros up to a multiple of 8 bytes
//          8 bytes for each document: the index in this file of its first token, rising from 0. A document never goes on in another file.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

struct stat;

namespace penstock::data {

// In a token as this program handles it: context, never a target. In a file it is the highest bit of the token.
inline constexpr uint32_t kNoTarget = 0x80000000u;

struct ShardHeader {
  uint32_t token_bytes = 2;
  uint64_t tokens = 0;
  uint64_t documents = 0;
  uint64_t text_bytes = 0;
  uint64_t fingerprint = 0;
  uint32_t largest_id = 0;
  uint32_t payload_crc = 0;
  bool has_context = false;

  static constexpr size_t kBytes = 64;
  [[nodiscard]] uint64_t starts_offset() const { return kBytes + (tokens * token_bytes + 7) / 8 * 8; }
  [[nodiscard]] uint64_t file_bytes() const { return starts_offset() + documents * 8; }
};

// 2 where every id fits beside what else a token says, else 4.
[[nodiscard]] uint32_t token_bytes_for(uint64_t vocab_size, bool has_context);

[[nodiscard]] std::string encode_shard_header(const ShardHeader& header);
// kDataLoss names the file and what is wrong: no magic, another version, a checksum that differs, numbers that contradict each other.
[[nodiscard]] Result<ShardHeader> decode_shard_header(std::string_view bytes, const std::string& file);

// Writes one file. Tokens go to disk as they come; only document starts are kept in memory.
//
// Threads: one.
// Errors:  throws Error kDataLoss naming the path and the cause (a full disk, a read-only folder).
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path path, uint32_t token_bytes, bool has_context, uint64_t fingerprint);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  // REQUIRES: ids that fit token_bytes; at least one.
  void add_document(std::span<const uint32_t> tokens, uint64_t text_bytes);
  [[nodiscard]] const ShardHeader& header() const { return header_; }
  // Writes starts and header, and fsyncs.
  void finish();

 private:
  void put(std::string_view bytes);
  void flush();

  const std::filesystem::path path_;
  int fd_ = -1;
  ShardHeader header_;
  std::vector<uint64_t> starts_;
  std::string buffer_;
};

// One file, open for reading. Nothing is mapped: pread uses the same page cache, and a file that shrinks is an Error, not SIGBUS.
//
// Threads: const and shared freely.
class Shard {
 public:
  // Reads the header only. kNotFound; kDataLoss: a header that is damaged, or a length that is not the header's.
  [[nodiscard]] static Result<Shard> open(const std::filesystem::path& path);
  Shard(Shard&& other) noexcept;
  Shard& operator=(Shard&& other) noexcept;
  ~Shard();

  [[nodiscard]] const ShardHeader& header() const { return header_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  // Tokens first … first + out.size() − 1, kNoTarget set where the file says so. Throws Error kDataLoss naming the file: it was removed, replaced,
  // cut or written to since it was opened; it cannot be read; a token is larger than header().largest_id.
  void read(uint64_t first, std::span<uint32_t> out) const;
  // The starts of documents first … first + out.size() − 1. Throws as read() does.
  void read_starts(uint64_t first, std::span<uint64_t> out) const;
  // Reads everything. Throws Error kDataLoss when the checksum differs. `progress`: bytes read since the last call.
  void verify(const std::function<void(uint64_t)>& progress) const;

 private:
  struct Identity {
    uint64_t device = 0, inode = 0, bytes = 0;
    int64_t modified_ns = 0;
    bool operator==(const Identity&) const = default;
  };
  Shard(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  static Identity identity_of(const struct ::stat& info);
  void require_unchanged() const;
  void read_bytes(uint64_t offset, std::span<std::byte> out) const;

  std::string path_;
  int fd_ = -1;
  ShardHeader header_;
  Identity identity_;
};

}  // namespace penstock::data
