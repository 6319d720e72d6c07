#pragma once
// Documents one after another as tokens that can be read at any place: in memory, or in shards on disk.
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "data/document_encoder.h"
#include "data/token_shard.h"

namespace penstock::data {

// Threads: const and shared freely.
// Errors:  reading throws what Shard::read throws.
class TokenStream {
 public:
  virtual ~TokenStream() = default;

  [[nodiscard]] int64_t size() const { return size_; }            // tokens
  [[nodiscard]] int64_t documents() const { return documents_; }
  [[nodiscard]] int64_t text_bytes() const { return text_bytes_; }
  [[nodiscard]] bool has_context() const { return has_context_; }  // tokens may have kNoTarget set

  // REQUIRES: first + out.size() <= size().
  virtual void read(int64_t first, std::span<uint32_t> out) const = 0;
  // Appends the documents' starts in [first, last), rising.
  virtual void document_starts(int64_t first, int64_t last, std::vector<int64_t>& out) const = 0;

 protected:
  int64_t size_ = 0, documents_ = 0, text_bytes_ = 0;
  bool has_context_ = false;
};

class MemoryStream : public TokenStream {
 public:
  void add(const EncodedDocument& document);
  void read(int64_t first, std::span<uint32_t> out) const override;
  void document_starts(int64_t first, int64_t last, std::vector<int64_t>& out) const override;

 private:
  std::vector<uint32_t> tokens_;
  std::vector<int64_t> starts_;
};

// The shards of a split as one stream; keeps a few numbers for each shard and nothing of what is in it.
class ShardStream : public TokenStream {
 public:
  explicit ShardStream(std::vector<Shard> shards);
  void read(int64_t first, std::span<uint32_t> out) const override;
  void document_starts(int64_t first, int64_t last, std::vector<int64_t>& out) const override;

 private:
  [[nodiscard]] size_t shard_with(int64_t token) const;

  std::vector<Shard> shards_;
  std::vector<int64_t> first_;  // token of each shard
};

}  // namespace penstock::data
