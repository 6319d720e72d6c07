#pragma once
// Text files -> documents -> two streams of token ids, one to train on and one to validate on.
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/train_config.h"
#include "text/tokenizer.h"

namespace penstock::train {

struct TokenStream {
  std::vector<int32_t> ids;  // documents one after another, each followed by the end token
  int64_t bytes = 0;         // of text, without end tokens
  int64_t documents = 0;
};

struct TextCorpus {
  TokenStream train;
  TokenStream validation;
};

// Reads the files of `data.paths` (folders: every regular text file below them, by name; symbolic links to files that are read anyway
// and files with a NUL byte are left out), cuts documents at lines that are just the separator, and holds out an even share of them:
// the same files give the same corpus on every rank.
// Errors: kNotFound, kInvalidArgument (no text, too little text for one window, more than 4 GiB) naming the path.
[[nodiscard]] Result<TextCorpus> load_text_corpus(const config::TrainDataConfig& data, const text::Tokenizer& tokenizer);

// The files that load_text_corpus reads, in its order.
[[nodiscard]] Result<std::vector<std::string>> corpus_files(const std::vector<std::string>& paths);

}  // namespace penstock::train
