#include "text/byte_alphabet.h"

#include <array>
#include <map>

#include "base/utf8.h"

namespace penstock::text {
namespace {

constexpr bool stands_for_itself(int byte) { return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD); }

const std::array<std::string, 256>& symbols() {
  static const std::array<std::string, 256> kSymbols = [] {
    std::array<std::string, 256> table;
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      append_utf8(table[static_cast<size_t>(byte)], stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++);
    }
    return table;
  }();
  return kSymbols;
}

}  // namespace

std::string byte_symbol(unsigned char byte) { return symbols()[byte]; }

std::optional<unsigned char> byte_of_symbol(std::string_view symbol) {
  static const std::map<std::string, unsigned char, std::less<>> kBytes = [] {
    std::map<std::string, unsigned char, std::less<>> table;
    for (size_t byte = 0; byte < 256; ++byte) table.emplace(symbols()[byte], static_cast<unsigned char>(byte));
    return table;
  }();
  const auto found = kBytes.find(symbol);
  if (found == kBytes.end()) return std::nullopt;
  return found->second;
}

}  // namespace penstock::text
