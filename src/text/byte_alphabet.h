#pragma once
// The printable stand-ins for bytes in which byte-level vocabularies are written (GPT-2's).
#include <optional>
#include <string>
#include <string_view>

namespace penstock::text {

// Bytes that are visible Latin-1 characters stand for themselves, the others for U+0100, U+0101, ... in order.
[[nodiscard]] std::string byte_symbol(unsigned char byte);

// The byte of a single such character; nullopt for any other text.
[[nodiscard]] std::optional<unsigned char> byte_of_symbol(std::string_view symbol);

}  // namespace penstock::text
