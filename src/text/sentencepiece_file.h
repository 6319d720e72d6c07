#pragma once
// tokenizer.model: SentencePiece's ModelProto. Own reader: the library of that name reads beyond its tables for a file made to do so.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::text {

struct SentencePiece {
  enum Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  std::string text;
  float score = 0;
  Type type = kNormal;
  bool added = false;  // by other files than the model's: found in a text before the model sees it
};

struct SentencePieceFile {
  enum Model { kUnigram = 1, kBpe = 2 };
  std::vector<SentencePiece> pieces;  // by id
  Model model = kUnigram;
  bool byte_fallback = false;
  bool space_as_suffix = false;  // the word symbol stands behind words
  std::string unknown_surface = " \xE2\x81\x87 ";  // what the unknown token is decoded to
  std::string begin_piece = "<s>", end_piece = "</s>";
  std::string charsmap;  // normalization rules (charsmap.h); empty = none
  bool add_dummy_prefix = true, remove_extra_spaces = true, escape_spaces = true;
};

// Throws Error kDataLoss or kUnimplemented (another model type) starting with `where`.
[[nodiscard]] SentencePieceFile parse_sentencepiece(std::string_view bytes, const std::string& where);
// The bytes of a file that says the same.
[[nodiscard]] std::string format_sentencepiece(const SentencePieceFile& file);

}  // namespace penstock::text
