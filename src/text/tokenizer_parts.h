#pragma once
// What a tokenizer is made of. For the .cpp files of this folder.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_model.h"
#include "text/vocabulary.h"

namespace penstock::text {

// What decoding does at the start of a text.
struct StartRule {
  enum Kind {
    kNothing,
    kStripText,        // up to `count` spaces go from the start of the text
    kDropFromFirst,    // all spaces go from the first token
    kStripEveryToken,  // one space from each token until something is shown, `count` of them at most; SentencePiece's rule
  };
  Kind kind = kNothing;
  int count = 0;
};

// Text flows down this list: added tokens are found first, the rest is normalized, cut, and given to the model piece by piece.
struct TokenizerParts {
  struct Token {
    std::string bytes;     // what it spells in the middle of a text
    bool special = false;
    bool stripped = true;  // the rule for the start of a text applies to it
  };

  AddedTokens raw_added;         // found in the text as it came
  Normalizer normalizer;
  AddedTokens normalized_added;  // found in the normalized text
  PreTokenizer pre_tokenizer;
  std::unique_ptr<const TokenModel> model;
  std::shared_ptr<const Vocabulary> vocabulary;  // the model's; pieces as the model sees them
  bool byte_level = false;                       // pieces are bytes, not characters
  std::map<std::string, int32_t, std::less<>> added_ids;

  std::vector<int32_t> before, after;  // what add_special_tokens puts around a text
  std::vector<Token> tokens;           // by id
  StartRule start;
  int32_t begin_id = kNoToken, end_id = kNoToken;
  std::vector<int32_t> end_ids;  // end_id, and whatever else ends a text
};

}  // namespace penstock::text
