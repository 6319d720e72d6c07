#pragma once
// The data of a run as its ranks use it.
#include <cstdint>
#include <optional>
#include <vector>

#include "data/corpus.h"
#include "data/rows.h"
#include "train/data_loader.h"

namespace penstock::train {

// Threads: const and shared freely. Not movable: its members refer to one another.
class RunData {
 public:
  // Reads or opens the corpus (data::open_corpus, with its errors). kInvalidArgument: too little to fill one row, or nothing held out.
  // `model_tokenizer`: the directory of the model that is trained further; empty = none.
  RunData(const config::TrainDataConfig& config, const BatchShape& shape, uint64_t seed, const std::filesystem::path& model_tokenizer = {});
  RunData(const RunData&) = delete;
  RunData& operator=(const RunData&) = delete;

  [[nodiscard]] const data::Corpus& corpus() const { return corpus_; }
  [[nodiscard]] const DataLoader& loader() const { return *loader_; }
  // Whether every step has tokens_per_step() targets, so that nobody needs to count.
  [[nodiscard]] bool every_target_counts() const { return train_rows_->every_target_counts(); }
  [[nodiscard]] int64_t validation_batches() const { return train::validation_batches(*validation_rows_, shape_); }
  [[nodiscard]] pipeline::Microbatch validation_batch(int64_t batch, int replica) const {
    return train::validation_batch(*validation_rows_, shape_, batch, replica);
  }
  // Of text that the targets >= 0 stand for.
  [[nodiscard]] int64_t text_bytes(const at::Tensor& targets) const;

 private:
  const BatchShape shape_;
  const data::Corpus corpus_;
  std::optional<data::Rows> train_rows_, validation_rows_;
  std::optional<DataLoader> loader_;
  std::vector<int64_t> bytes_of_token_;
};

}  // namespace penstock::train
