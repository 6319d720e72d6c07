#pragma once
// SentencePiece's two models: merging by score, and the likeliest path.
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/piece_trie.h"
#include "text/token_model.h"
#include "text/vocabulary.h"

namespace penstock::text {

// What a piece is to a model. The others (control, unknown, bytes) are never found in a text.
enum class PieceUse : uint8_t { kNever, kNormal, kUserDefined, kUnused };

struct ScoredPieces {
  std::shared_ptr<const Vocabulary> vocabulary;  // find() knows normal, user-defined and unused pieces
  std::vector<double> scores;                    // by id, as are the uses
  std::vector<PieceUse> uses;
  int32_t unknown = kNoToken;                    // becomes of what has no piece; neighbours become one
  std::vector<int32_t> byte_ids;                 // 256 of them: unknown characters become the tokens of their bytes; or empty
  bool single_precision = true;                  // scores add up in 32 bits, as SentencePiece's do; Hugging Face's in 64
};

// Of all neighbours that together are a piece, those with the highest score merge first, the leftmost of several; user-defined pieces are
// never cut or merged, unused ones are cut again into what they were merged from.
//
// Threads: const methods may be called from any thread at once.
class ScoredMergeModel : public TokenModel {
 public:
  explicit ScoredMergeModel(ScoredPieces pieces);
  void encode(std::string_view text, std::vector<int32_t>& ids) const override;

 private:
  ScoredPieces pieces_;
  PieceTrie user_defined_;
};

// Kudo, "Subword Regularization": the pieces whose scores (logarithms of probabilities) have the largest sum.
//
// Threads: const methods may be called from any thread at once.
class UnigramModel : public TokenModel {
 public:
  explicit UnigramModel(ScoredPieces pieces);
  void encode(std::string_view text, std::vector<int32_t>& ids) const override;

 private:
  [[nodiscard]] double rounded(double sum) const { return pieces_.single_precision ? static_cast<float>(sum) : sum; }

  ScoredPieces pieces_;
  PieceTrie trie_;
  double unknown_score_ = 0, highest_ = 0;
};

// Appends the ids of parts of a text, given one after another: unknown ones become bytes, or one token for each run of them.
class PieceWriter {
 public:
  PieceWriter(const ScoredPieces& pieces, std::vector<int32_t>& ids) : pieces_(pieces), ids_(ids) {}
  void write(std::string_view part, int32_t id);

 private:
  const ScoredPieces& pieces_;
  std::vector<int32_t>& ids_;
  bool behind_unknown_ = false;
};

}  // namespace penstock::text
