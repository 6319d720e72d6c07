#include "train/run_data.h"

#include "base/error.h"

namespace penstock::train {
namespace {

// What to do about a text of which nothing is held out.
constexpr const char* kTooFewDocuments =
    "; documents are held out whole, and there are too few: cut the text into more (data.separator) or name files to hold out (data.validation_path), for prepared data in "
    "`penstock data prepare` (--separator, --validation)";

}  // namespace

RunData::RunData(const config::TrainDataConfig& config, const BatchShape& shape, uint64_t seed, const std::filesystem::path& model_tokenizer)
    : shape_(shape), corpus_(data::open_corpus(config, model_tokenizer).value()) {
  if (corpus_.chat && config.packing == data::Packing::kStream) {
    throw error(Code::kInvalidArgument, "data.packing: {} holds conversations, which are kept apart: expected whole or document, found stream", config.paths.front());
  }
  train_rows_.emplace(*corpus_.train, shape.sequence_length, config.packing);
  validation_rows_.emplace(*corpus_.validation, shape.sequence_length, config.packing);
  if (train_rows_->full() < 1 || validation_rows_->count() < 1) {
    throw error(Code::kInvalidArgument, "data.path: {} tokens to train on and {} to validate on, in {} and {} documents; expected more than {} tokens and at least 2{}",
                corpus_.train->size(), corpus_.validation->size(), corpus_.train->documents(), corpus_.validation->documents(), shape.sequence_length,
                validation_rows_->count() < 1 ? kTooFewDocuments : "");
  }
  loader_.emplace(*train_rows_, shape, seed);
  for (int id = 0; id < corpus_.tokenizer->vocab_size(); ++id) bytes_of_token_.push_back(static_cast<int64_t>(corpus_.tokenizer->bytes_of(id).size()));
}

int64_t RunData::text_bytes(const at::Tensor& targets) const {
  int64_t bytes = 0;
  for (int64_t i = 0; i < targets.numel(); ++i) {
    const int64_t id = targets.data_ptr<int64_t>()[i];
    if (id >= 0) bytes += bytes_of_token_[static_cast<size_t>(id)];
  }
  return bytes;
}

}  // namespace penstock::train
