#include "data/prepare.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "base/clock.h"
#include "base/file.h"
#include "base/replace_folder.h"
#include "data/document_encoder.h"
#include "data/hold_out.h"
#include "data/ordered_pool.h"

namespace penstock::data {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = 1 << 20;  // of text that a thread takes at a time; at least one document

// The folder while it is written: locked, so that two programs do not write the same one; removed unless committed.
class UnfinishedFolder {
 public:
  UnfinishedFolder(const fs::path& output, bool overwrite) : output_(output), path_(output) {
    path_ += ".writing";
    std::error_code unknown, failed;
    if (fs::exists(fs::symlink_status(output_, unknown))) {
      if (!overwrite) throw error(Code::kAlreadyExists, "{} is already there; choose another output, or replace it with --overwrite", output_.string());
      if (!is_token_folder(output_)) throw error(Code::kAlreadyExists, "{} is there and holds no prepared data: not replaced", output_.string());
    }
    if (output_.has_parent_path()) fs::create_directories(output_.parent_path(), failed);
    if (failed) throw error(Code::kDataLoss, "cannot create {}: {}", output_.parent_path().string(), failed.message());
    if (::mkdir(path_.c_str(), 0777) != 0 && errno != EEXIST) throw failure("create", path_, errno == ENOENT ? Code::kNotFound : Code::kDataLoss);
    lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock_ < 0) throw failure("open", path_, Code::kDataLoss);
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
      ::close(lock_);
      throw error(Code::kFailedPrecondition, "{}: another program is writing it", path_.string());
    }
    try {
      for (const auto& left : fs::directory_iterator(path_)) fs::remove_all(left.path());  // by a program that was killed
    } catch (const fs::filesystem_error& e) {
      ::close(lock_);
      throw error(Code::kDataLoss, "cannot clear {}: {}", path_.string(), e.code().message());
    }
  }
  ~UnfinishedFolder() {
    std::error_code ignored;
    if (!committed_) fs::remove_all(path_, ignored);
    ::close(lock_);
  }
  UnfinishedFolder(const UnfinishedFolder&) = delete;
  UnfinishedFolder& operator=(const UnfinishedFolder&) = delete;

  [[nodiscard]] const fs::path& path() const { return path_; }

  void commit() {
    sync_path(path_);
    replace_folder(path_, output_);
    committed_ = true;
  }

 private:
  static Error failure(const char* verb, const fs::path& path, Code code) { return error(code, "cannot {} {}: {}", verb, path.string(), std::strerror(errno)); }

  const fs::path output_;
  fs::path path_;
  int lock_ = -1;
  bool committed_ = false;
};

// The shards of one split, one open at a time.
class SplitWriter {
 public:
  SplitWriter(fs::path folder, std::string name, uint32_t token_bytes, bool chat, uint64_t fingerprint, uint64_t shard_bytes)
      : folder_(std::move(folder)), name_(std::move(name)), token_bytes_(token_bytes), chat_(chat), fingerprint_(fingerprint), shard_bytes_(shard_bytes) {}

  void add(const EncodedDocument& document) {
    if (shard_ && shard_->header().file_bytes() >= shard_bytes_) close_shard();
    if (!shard_) {
      file_ = fmt::format("{}-{:05}.tokens", name_, info_.shards.size());
      shard_.emplace(folder_ / file_, token_bytes_, chat_, fingerprint_);
    }
    shard_->add_document(document.tokens, document.text_bytes);
  }
  [[nodiscard]] SplitInfo finish() {
    if (shard_) close_shard();
    return info_;
  }

 private:
  void close_shard() {
    shard_->finish();
    info_.add(file_, shard_->header());
    shard_.reset();
  }

  const fs::path folder_;
  const std::string name_;
  const uint32_t token_bytes_;
  const bool chat_;
  const uint64_t fingerprint_, shard_bytes_;
  SplitInfo info_;
  std::string file_;
  std::optional<ShardWriter> shard_;
};

class Preparation {
 public:
  explicit Preparation(const PrepareOptions& options)
      : options_(options),
        folder_(options.output, options.overwrite),
        tokenizer_(open_tokenizer(options.tokenizer)),
        encoder_(tokenizer_, options.tokenizer, options.source),
        info_(describe(*tokenizer_)),
        train_(split_writer("train")),
        validation_(split_writer("validation")) {}

  PrepareResult operator()() {
    const bool own_validation = !options_.validation_inputs.empty();
    const auto files = files_below(options_.inputs).value();
    const auto held_out = own_validation ? files_below(options_.validation_inputs).value() : std::vector<std::string>{};
    result_.files = static_cast<int64_t>(files.size() + held_out.size());
    HoldOut hold_out(own_validation ? 0 : options_.validation_fraction);
    read_all(files, [&](const EncodedDocument& document) { (hold_out.next() ? validation_ : train_).add(document); });
    read_all(held_out, [&](const EncodedDocument& document) { validation_.add(document); });
    return finish();
  }

 private:
  using Piece = std::vector<RawDocument>;
  using Encoded = std::vector<EncodedDocument>;

  SplitWriter split_writer(const char* name) const {
    const uint32_t bytes = token_bytes_for(static_cast<uint64_t>(info_.vocab_size), chat());
    return {folder_.path(), name, bytes, chat(), info_.fingerprint, options_.shard_bytes};
  }
  [[nodiscard]] bool chat() const { return options_.source.format == TextFormat::kChat; }

  static Piece next_piece(DocumentReader& reader) {
    Piece piece;
    for (size_t bytes = 0; bytes < kPieceBytes;) {
      auto document = reader.next();
      if (!document) break;
      bytes += document->content.size();
      piece.push_back(std::move(*document));
    }
    return piece;
  }

  // An error of reading waits for its turn, so that the first bad document is named.
  bool give_piece(DocumentReader& reader, OrderedPool<Encoded>& pool) const {
    try {
      Piece piece = next_piece(reader);
      if (piece.empty()) return false;
      pool.give([this, piece = std::move(piece)]() mutable {
        Encoded encoded;
        for (RawDocument& document : piece) encoded.push_back(encoder_.encode(std::move(document)));
        return encoded;
      });
      return true;
    } catch (const Error&) {
      pool.give_failure(std::current_exception());
      return false;
    }
  }

  template <typename Take>
  void read_all(const std::vector<std::string>& files, Take take) {
    DocumentReader reader(files, options_.source);
    OrderedPool<Encoded> pool(options_.threads);
    for (bool more = true; more || !pool.empty();) {
      while (more && !pool.full()) more = give_piece(reader, pool);
      if (pool.empty()) break;
      for (const EncodedDocument& document : pool.take()) {
        if (document.tokens.empty()) {
          ++result_.empty_documents;
          continue;
        }
        tokens_ += document.tokens.size();
        ++documents_;
        take(document);
      }
      report(reader);
    }
    result_.files_left_out += reader.files_left_out();
  }

  void report(const DocumentReader& reader) const {
    if (options_.stopped && options_.stopped()) throw error(Code::kCancelled, "stopped; nothing was written");
    if (!options_.progress) return;
    const double seconds = to_seconds(Clock::now() - start_), read = static_cast<double>(reader.bytes_read());
    options_.progress(read / static_cast<double>(std::max<uint64_t>(1, reader.bytes_total())),
                      fmt::format("{} documents  {:.1f} M tokens  {:.1f} MB/s", documents_, static_cast<double>(tokens_) * 1e-6, read * 1e-6 / std::max(seconds, 1e-3)));
  }

  PrepareResult finish() {
    result_.folder = {info_, chat(), train_.finish(), validation_.finish()};
    if (const auto& held_out = result_.folder.validation; result_.folder.train.tokens == 0 && held_out.tokens > 0 && options_.validation_inputs.empty()) {
      throw error(Code::kInvalidArgument, "all {} documents are held out for validation; expected some to train on", held_out.documents);
    }
    if (result_.folder.train.tokens == 0) {
      throw error(Code::kInvalidArgument, "no text found in {} files ({} of them are no text, {} documents are empty)", result_.files, result_.files_left_out,
                  result_.empty_documents);
    }
    fs::create_directory(folder_.path() / kTokenizerFolder);
    copy_tokenizer_files(options_.tokenizer, folder_.path() / kTokenizerFolder);
    write_file_atomic(folder_.path() / kTokenManifest, to_json(result_.folder));
    folder_.commit();
    return result_;
  }

  const PrepareOptions& options_;
  UnfinishedFolder folder_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  DocumentEncoder encoder_;
  const TokenizerInfo info_;
  SplitWriter train_, validation_;
  PrepareResult result_;
  uint64_t tokens_ = 0, documents_ = 0;
  const Clock::time_point start_ = Clock::now();
};

}  // namespace

PrepareResult prepare(const PrepareOptions& options) { return Preparation(options)(); }

}  // namespace penstock::data
