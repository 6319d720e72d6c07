#include "text/sentencepiece_file.h"

#include <cmath>
#include <cstring>

#include "base/utf8.h"
#include "text/vocabulary.h"

namespace penstock::text {
namespace {

// One field after another of a protobuf message.
class WireReader {
 public:
  WireReader(std::string_view bytes, const std::string& where) : rest_(bytes), where_(where) {}

  // False at the end of the message.
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t tag = varint();
    field_ = tag >> 3;
    switch (tag & 7) {
      case 0:
        number_ = varint();
        break;
      case 1:
        data_ = take(8);
        break;
      case 2:
        data_ = take(varint());
        break;
      case 5:
        data_ = take(4);
        break;
      default:
        throw broken(fmt::format("unknown wire type {}", tag & 7));
    }
    kind_ = tag & 7;
    return true;
  }

  [[nodiscard]] uint64_t field() const { return field_; }
  [[nodiscard]] uint64_t number() const {
    if (kind_ != 0) throw broken(fmt::format("field {} is no number", field_));
    return number_;
  }
  [[nodiscard]] std::string_view data() const {
    if (kind_ != 2) throw broken(fmt::format("field {} is no text", field_));
    return data_;
  }
  [[nodiscard]] float real() const {
    if (kind_ != 5) throw broken(fmt::format("field {} is no real number", field_));
    float value;
    std::memcpy(&value, data_.data(), sizeof(value));
    return value;
  }
  [[nodiscard]] Error broken(const std::string& what) const { return error(Code::kDataLoss, "{}: no SentencePiece model: {}", where_, what); }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) throw broken("it ends in the middle of a number");
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    throw broken("a number of more than 64 bits");
  }

  std::string_view take(uint64_t size) {
    if (size > rest_.size()) throw broken(fmt::format("a field of {} bytes where {} are left", size, rest_.size()));
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::string_view rest_, data_;
  const std::string& where_;
  uint64_t field_ = 0, number_ = 0, kind_ = 0;
};

// Field numbers are those of sentencepiece_model.proto.
SentencePiece read_piece(std::string_view bytes, const std::string& where) {
  SentencePiece piece;
  WireReader reader(bytes, where);
  while (reader.next()) {
    if (reader.field() == 1) piece.text = reader.data();
    if (reader.field() == 2) piece.score = reader.real();
    if (reader.field() == 3) {
      if (reader.number() < SentencePiece::kNormal || reader.number() > SentencePiece::kByte) throw reader.broken(fmt::format("a piece of type {}", reader.number()));
      piece.type = static_cast<SentencePiece::Type>(reader.number());
    }
  }
  if (piece.text.empty() || find_invalid_utf8(piece.text) != std::string_view::npos) throw reader.broken("a piece that is empty or no UTF-8");
  if (!std::isfinite(piece.score)) throw reader.broken(fmt::format("the score of piece '{}' is not finite", piece.text));
  return piece;
}

void read_trainer(std::string_view bytes, const std::string& where, SentencePieceFile& file) {
  WireReader reader(bytes, where);
  while (reader.next()) {
    switch (reader.field()) {
      case 3:
        if (reader.number() != SentencePieceFile::kUnigram && reader.number() != SentencePieceFile::kBpe) {
          throw error(Code::kUnimplemented, "{}: model type {} is not supported; only unigram (1) and BPE (2) are", where, reader.number());
        }
        file.model = static_cast<SentencePieceFile::Model>(reader.number());
        break;
      case 24:
        file.space_as_suffix = reader.number() != 0;
        break;
      case 35:
        file.byte_fallback = reader.number() != 0;
        break;
      case 44:
        file.unknown_surface = reader.data();
        break;
      case 46:
        file.begin_piece = reader.data();
        break;
      case 47:
        file.end_piece = reader.data();
        break;
      default:
        break;
    }
  }
}

void read_normalizer_spec(std::string_view bytes, const std::string& where, SentencePieceFile& file) {
  WireReader reader(bytes, where);
  while (reader.next()) {
    if (reader.field() == 2) file.charsmap = reader.data();
    if (reader.field() == 3) file.add_dummy_prefix = reader.number() != 0;
    if (reader.field() == 4) file.remove_extra_spaces = reader.number() != 0;
    if (reader.field() == 5) file.escape_spaces = reader.number() != 0;
  }
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_number(std::string& out, uint64_t field, uint64_t value) {
  put_varint(out, field << 3);
  put_varint(out, value);
}

void put_data(std::string& out, uint64_t field, std::string_view data) {
  put_varint(out, field << 3 | 2);
  put_varint(out, data.size());
  out += data;
}

}  // namespace

std::string format_sentencepiece(const SentencePieceFile& file) {
  std::string out;
  for (const SentencePiece& piece : file.pieces) {
    std::string message;
    put_data(message, 1, piece.text);
    put_varint(message, 2 << 3 | 5);
    message.append(reinterpret_cast<const char*>(&piece.score), sizeof(piece.score));
    if (piece.type != SentencePiece::kNormal) put_number(message, 3, piece.type);
    put_data(out, 1, message);
  }
  std::string trainer;
  put_number(trainer, 3, file.model);
  put_number(trainer, 24, file.space_as_suffix ? 1 : 0);
  put_number(trainer, 35, file.byte_fallback ? 1 : 0);
  const auto put_id = [&](uint64_t field, auto is) {
    for (size_t id = 0; id < file.pieces.size(); ++id) {
      if (is(file.pieces[id])) return put_number(trainer, field, id);
    }
  };
  put_id(40, [](const SentencePiece& piece) { return piece.type == SentencePiece::kUnknown; });
  put_id(41, [&](const SentencePiece& piece) { return piece.text == file.begin_piece; });
  put_id(42, [&](const SentencePiece& piece) { return piece.text == file.end_piece; });
  put_data(trainer, 44, file.unknown_surface);
  put_data(trainer, 46, file.begin_piece);
  put_data(trainer, 47, file.end_piece);
  put_data(out, 2, trainer);
  std::string normalizer;
  put_data(normalizer, 1, file.charsmap.empty() ? "identity" : "");
  if (!file.charsmap.empty()) put_data(normalizer, 2, file.charsmap);
  put_number(normalizer, 3, file.add_dummy_prefix ? 1 : 0);
  put_number(normalizer, 4, file.remove_extra_spaces ? 1 : 0);
  put_number(normalizer, 5, file.escape_spaces ? 1 : 0);
  put_data(out, 3, normalizer);
  return out;
}

SentencePieceFile parse_sentencepiece(std::string_view bytes, const std::string& where) {
  SentencePieceFile file;
  WireReader reader(bytes, where);
  while (reader.next()) {
    if (reader.field() == 1) {
      if (file.pieces.size() >= static_cast<size_t>(kMaxVocabulary)) throw reader.broken(fmt::format("more than {} pieces", kMaxVocabulary));
      file.pieces.push_back(read_piece(reader.data(), where));
    }
    if (reader.field() == 2) read_trainer(reader.data(), where, file);
    if (reader.field() == 3) read_normalizer_spec(reader.data(), where, file);
  }
  if (file.pieces.empty()) throw reader.broken("it has no pieces");
  return file;
}

}  // namespace penstock::text
