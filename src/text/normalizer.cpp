#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "text/characters.h"

namespace penstock::text {
namespace {

bool is_ascii(char byte) { return static_cast<unsigned char>(byte) < 0x80; }

// The characters of `part`, each decomposed.
std::vector<utf8proc_int32_t> decomposed(std::string_view part, utf8proc_option_t options) {
  std::vector<utf8proc_int32_t> result(part.size());  // most take no more characters than bytes
  size_t size = 0;
  for (size_t at = 0; at < part.size();) {
    const auto c = static_cast<utf8proc_int32_t>(next_character(part, at));
    int boundary = 0;
    while (true) {
      const auto room = static_cast<utf8proc_ssize_t>(result.size() - size);
      const utf8proc_ssize_t count = utf8proc_decompose_char(c, result.data() + size, room, options, &boundary);
      if (count < 0) throw error(Code::kInternal, "normalizing the character U+{:04X}: {}", static_cast<uint32_t>(c), utf8proc_errmsg(count));
      if (count <= room) {
        size += static_cast<size_t>(count);
        break;
      }
      result.resize(2 * result.size() + static_cast<size_t>(count));
    }
  }
  result.resize(size);
  return result;
}

// Each run of marks by their combining classes (Unicode 3.11, D108). utf8proc's own sort takes time in the square of a run's length.
void order_marks(std::vector<utf8proc_int32_t>& characters) {
  const auto combining = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto at = characters.begin(); at != characters.end();) {
    const auto begin = std::find_if(at, characters.end(), [&](utf8proc_int32_t c) { return combining(c) != 0; });
    at = std::find_if(begin, characters.end(), [&](utf8proc_int32_t c) { return combining(c) == 0; });
    std::stable_sort(begin, at, [&](utf8proc_int32_t a, utf8proc_int32_t b) { return combining(a) < combining(b); });
  }
}

void append_normal(std::string_view part, utf8proc_option_t options, std::string& out) {
  std::vector<utf8proc_int32_t> characters = decomposed(part, options);
  order_marks(characters);
  const auto count = static_cast<utf8proc_ssize_t>(characters.size());
  characters.push_back(0);  // room for the zero that ends the bytes, which take the place of the characters
  const utf8proc_ssize_t size = utf8proc_reencode(characters.data(), count, options);
  if (size < 0) throw error(Code::kInternal, "normalizing {} bytes of text: {}", part.size(), utf8proc_errmsg(size));
  out.append(reinterpret_cast<const char*>(characters.data()), static_cast<size_t>(size));
}

utf8proc_option_t options_of(UnicodeForm form) {
  const bool compose = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc;
  const bool compatible = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) | (compatible ? UTF8PROC_COMPAT : 0));
}

// ASCII is in every normal form and begins anew: only the stretches of other characters are looked at, each with the character before it,
// to which its first one may belong.
std::string to_form(std::string_view text, UnicodeForm form) {
  const utf8proc_option_t options = options_of(form);
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const auto begin = std::find_if_not(text.begin() + static_cast<ptrdiff_t>(at), text.end(), is_ascii);
    const auto end = std::find_if(begin, text.end(), is_ascii);
    size_t first = static_cast<size_t>(begin - text.begin());
    if (begin != end && first > at) --first;
    out += text.substr(at, first - at);
    at = static_cast<size_t>(end - text.begin());
    if (at > first) append_normal(text.substr(first, at - first), options, out);
  }
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) append_lower(out, next_character(text, at));
  return out;
}

std::string without_marks(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (!is_mark(next_character(text, at))) out += text.substr(begin, at - begin);
  }
  return out;
}

std::string stripped(std::string_view text, bool left, bool right) {
  for (size_t at = 0; left && !text.empty(); at = 0) {
    if (!is_white_space(next_character(text, at))) break;
    text.remove_prefix(at);
  }
  while (right && !text.empty()) {
    const size_t last = last_character(text);
    size_t at = last;
    if (!is_white_space(next_character(text, at))) break;
    text = text.substr(0, last);
  }
  return std::string(text);
}

std::string replaced(std::string_view text, const std::string& from, const std::string& to) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at <= text.size();) {
    const size_t found = std::min(text.find(from, at), text.size());
    out += text.substr(at, found - at);
    if (found == text.size()) break;
    out += to;
    at = found + from.size();
  }
  return out;
}

std::string replaced(std::string_view text, const UnicodeRegex& from, const std::string& to) {
  std::string out;
  UnicodeRegex::Search search(from);
  size_t written = 0, at = 0;
  while (at <= text.size()) {
    const auto match = search.next(text, at);
    if (!match) break;
    out += text.substr(written, match->begin - written);
    out += to;
    written = at = match->end;
    if (match->begin < match->end) continue;
    if (at == text.size()) break;
    (void)next_character(text, at);  // an empty match: go on behind the next character
  }
  out += text.substr(written);
  return out;
}

}  // namespace

void Normalizer::add_unicode_form(UnicodeForm form) {
  steps_.emplace_back([form](std::string_view text) { return to_form(text, form); });
}
void Normalizer::add_lowercase() { steps_.emplace_back(to_lower); }
void Normalizer::add_strip_accents() { steps_.emplace_back(without_marks); }
void Normalizer::add_strip(bool left, bool right) {
  steps_.emplace_back([left, right](std::string_view text) { return stripped(text, left, right); });
}
void Normalizer::add_prepend(std::string prefix) {
  steps_.emplace_back([prefix = std::move(prefix)](std::string_view text) { return text.empty() ? std::string() : prefix + std::string(text); });
}
void Normalizer::add_replace(std::string from, std::string to) {
  PENSTOCK_CHECK(!from.empty(), "nothing to replace");
  steps_.emplace_back([from = std::move(from), to = std::move(to)](std::string_view text) { return replaced(text, from, to); });
}
void Normalizer::add_replace(UnicodeRegex from, std::string to) {
  steps_.emplace_back([from = std::move(from), to = std::move(to)](std::string_view text) { return replaced(text, from, to); });
}

std::string_view Normalizer::normalize(std::string_view text, std::string& storage) const {
  for (const auto& step : steps_) {
    storage = step(text);
    text = storage;
  }
  return text;
}

}  // namespace penstock::text
