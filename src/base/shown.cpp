#include "base/shown.h"

#include "base/utf8.h"

namespace penstock {

std::string shown(std::string_view text) {
  constexpr size_t kShownBytes = 128;
  if (text.size() <= kShownBytes) return std::string(text);
  return std::string(utf8_prefix(text, kShownBytes)) + "...";
}

}  // namespace penstock
