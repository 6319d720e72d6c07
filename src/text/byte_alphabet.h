#pragma once
// The printable stand-ins for bytes in which byte-level vocabularies are written (GPT-2's).
#include <optional>
#include <string>
#include <string_view>

namespace penstock::text {

// Bytes that are visible Latin-1 characters stand for themselves, the others for U+0100, U+0101, ... in order.
[[nodiscard]] std::string byte_symbol(unsigned char byte);

// The bytes that such characters stand for; nullopt when there is another character among them. REQUIRES: valid UTF-8.
[[nodiscard]] std::optional<std::string> bytes_of_symbols(std::string_view symbols);

}  // namespace penstock::text
