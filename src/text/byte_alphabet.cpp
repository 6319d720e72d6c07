#include "text/byte_alphabet.h"

#include <array>

#include "base/utf8.h"
#include "text/characters.h"

namespace penstock::text {
namespace {

constexpr char32_t kFirstOther = 0x100;
constexpr size_t kSymbolEnd = 0x144;  // the last symbol is U+0143

constexpr bool stands_for_itself(size_t byte) { return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD); }

constexpr std::array<char32_t, 256> kSymbols = [] {
  std::array<char32_t, 256> symbols{};
  char32_t next = kFirstOther;
  for (size_t byte = 0; byte < 256; ++byte) symbols[byte] = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
  return symbols;
}();

constexpr std::array<int, kSymbolEnd> kBytes = [] {
  std::array<int, kSymbolEnd> bytes{};
  for (int& byte : bytes) byte = -1;
  for (size_t byte = 0; byte < 256; ++byte) bytes[kSymbols[byte]] = static_cast<int>(byte);
  return bytes;
}();

}  // namespace

std::string byte_symbol(unsigned char byte) {
  std::string symbol;
  append_utf8(symbol, kSymbols[byte]);
  return symbol;
}

std::optional<std::string> bytes_of_symbols(std::string_view symbols) {
  std::string bytes;
  for (size_t at = 0; at < symbols.size();) {
    const char32_t symbol = next_character(symbols, at);
    const int byte = symbol < kSymbolEnd ? kBytes[symbol] : -1;
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(byte);
  }
  return bytes;
}

}  // namespace penstock::text
