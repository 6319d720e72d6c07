#include "base/utf8.h"

#include "base/error.h"

namespace penstock {

Utf8Expectation utf8_after(unsigned char first) {
  if (first < 0x80) return {.count = 0};
  if (first < 0xC2) return {.count = -1};
  if (first < 0xE0) return {.count = 1};
  if (first == 0xE0) return {.count = 2, .low = 0xA0};
  if (first == 0xED) return {.count = 2, .high = 0x9F};
  if (first < 0xF0) return {.count = 2};
  if (first == 0xF0) return {.count = 3, .low = 0x90};
  if (first < 0xF4) return {.count = 3};
  if (first == 0xF4) return {.count = 3, .high = 0x8F};
  return {.count = -1};
}

size_t find_invalid_utf8(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    Utf8Expectation next = utf8_after(static_cast<unsigned char>(bytes[at]));
    if (next.count < 0 || at + static_cast<size_t>(next.count) >= bytes.size()) return at;
    for (int i = 1; i <= next.count; ++i) {
      const auto byte = static_cast<unsigned char>(bytes[at + static_cast<size_t>(i)]);
      if (byte < next.low || byte > next.high) return at;
      next.low = 0x80;
      next.high = 0xBF;
    }
    at += 1 + static_cast<size_t>(next.count);
  }
  return std::string_view::npos;
}

std::string_view utf8_prefix(std::string_view text, size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
  return text.substr(0, limit);
}

void append_utf8(std::string& text, char32_t code_point) {
  PENSTOCK_CHECK(code_point <= 0x10FFFF && (code_point < 0xD800 || code_point > 0xDFFF), "{:#x} is no scalar value",
                 static_cast<uint32_t>(code_point));
  const auto byte = [&](char32_t value) { text += static_cast<char>(static_cast<unsigned char>(value)); };
  const auto tail = [&](int shift) { byte(0x80 | ((code_point >> shift) & 0x3F)); };
  if (code_point < 0x80) {
    byte(code_point);
  } else if (code_point < 0x800) {
    byte(0xC0 | (code_point >> 6));
    tail(0);
  } else if (code_point < 0x10000) {
    byte(0xE0 | (code_point >> 12));
    tail(6);
    tail(0);
  } else {
    byte(0xF0 | (code_point >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace penstock
