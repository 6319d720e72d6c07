#include "data/corpus.h"

#include "data/document_encoder.h"
#include "data/hold_out.h"
#include "data/token_folder.h"

namespace penstock::data {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxBytes = uint64_t{1} << 32;

Corpus open_prepared(const fs::path& folder, const fs::path& model_tokenizer) {
  const TokenFolder info = read_token_folder(folder).value();
  Corpus corpus;
  corpus.tokenizer_folder = model_tokenizer.empty() ? folder / kTokenizerFolder : model_tokenizer;
  corpus.tokenizer = open_tokenizer(corpus.tokenizer_folder);
  if (const TokenizerInfo found = describe(*corpus.tokenizer); found != info.tokenizer) {
    throw error(Code::kInvalidArgument, "{} was prepared with another tokenizer (fingerprint {:016x}, vocabulary of {}) than that of {} ({:016x}, {}); prepare it "
                "again with --tokenizer {}", folder.string(), info.tokenizer.fingerprint, info.tokenizer.vocab_size, corpus.tokenizer_folder.string(), found.fingerprint,
                found.vocab_size, corpus.tokenizer_folder.string());
  }
  corpus.train = std::make_unique<ShardStream>(open_shards(folder, info, info.train));
  corpus.validation = std::make_unique<ShardStream>(open_shards(folder, info, info.validation));
  corpus.chat = info.chat;
  return corpus;
}

// All documents of the files, in memory.
class TextReader {
 public:
  TextReader(const config::TrainDataConfig& data, const fs::path& tokenizer_folder) : tokenizer_folder_(tokenizer_folder), tokenizer_(open_tokenizer(tokenizer_folder)) {
    source_.format = data.format;
    source_.separator = data.separator;
    source_.text_key = data.text_key;
    source_.max_document_bytes = kMaxBytes;
    if (tokenizer_folder.empty()) source_.invalid_utf8 = InvalidUtf8::kKeep;  // bytes are bytes
  }

  template <typename Take>
  void read(const std::vector<std::string>& paths, Take take) {
    const DocumentEncoder encoder(tokenizer_, tokenizer_folder_, source_);
    DocumentReader reader(files_below(paths).value(), source_);
    bytes_ += reader.bytes_total();
    if (bytes_ > kMaxBytes) {
      throw error(Code::kInvalidArgument, "{} bytes of text, more than {}; `penstock data prepare` turns them into shards that need not be in memory", bytes_, kMaxBytes);
    }
    while (auto document = reader.next()) {
      const EncodedDocument encoded = encoder.encode(std::move(*document));
      if (!encoded.tokens.empty()) take(encoded);
    }
  }
  [[nodiscard]] const std::shared_ptr<const text::Tokenizer>& tokenizer() const { return tokenizer_; }

 private:
  const fs::path tokenizer_folder_;
  const std::shared_ptr<const text::Tokenizer> tokenizer_;
  SourceOptions source_;
  uint64_t bytes_ = 0;
};

Corpus read_text(const config::TrainDataConfig& data, const fs::path& model_tokenizer) {
  TextReader reader(data, model_tokenizer);
  auto train = std::make_unique<MemoryStream>(), validation = std::make_unique<MemoryStream>();
  HoldOut hold_out(data.validation_paths.empty() ? data.validation_fraction : 0);
  reader.read(data.paths, [&](const EncodedDocument& document) { (hold_out.next() ? *validation : *train).add(document); });
  reader.read(data.validation_paths, [&](const EncodedDocument& document) { validation->add(document); });
  if (train->size() == 0 && validation->size() > 0 && data.validation_paths.empty()) {
    throw error(Code::kInvalidArgument, "all {} documents are held out, by data.validation_fraction {}; expected some to train on", validation->documents(), data.validation_fraction);
  }
  if (train->size() == 0) throw error(Code::kInvalidArgument, "no text found in {}", fmt::join(data.paths, ", "));
  Corpus corpus;
  corpus.train = std::move(train);
  corpus.validation = std::move(validation);
  corpus.tokenizer = reader.tokenizer();
  corpus.tokenizer_folder = model_tokenizer;
  corpus.chat = data.format == TextFormat::kChat;
  return corpus;
}

Corpus open_any(const config::TrainDataConfig& data, const fs::path& model_tokenizer) {
  for (const auto* paths : {&data.paths, &data.validation_paths}) {
    for (const std::string& path : *paths) {
      if (!is_token_folder(path)) continue;
      if (data.paths.size() == 1 && data.validation_paths.empty()) return open_prepared(path, model_tokenizer);
      throw error(Code::kInvalidArgument, "{} is prepared data, which must be the only path and holds its own validation data; prepare all texts together", path);
    }
  }
  return read_text(data, model_tokenizer);
}

}  // namespace

fs::path tokenizer_folder_of(const config::TrainDataConfig& data) {
  const bool prepared = data.paths.size() == 1 && is_token_folder(data.paths.front());
  return prepared ? fs::path(data.paths.front()) / kTokenizerFolder : fs::path();
}

Result<Corpus> open_corpus(const config::TrainDataConfig& data, const fs::path& model_tokenizer) {
  try {
    return open_any(data, model_tokenizer);
  } catch (const Error& wrong) {
    return error(wrong.code(), "data.path: {}", wrong.message());
  }
}

}  // namespace penstock::data
