#include "text/unicode_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>

#include "base/utf8.h"

namespace penstock::text {
namespace {

constexpr size_t kPatternLimit = 64 << 10;   // bytes
constexpr size_t kShownBytes = 200;
constexpr uint32_t kBaseSteps = 10'000'000;  // of backtracking in one match, and as many again for each MiB of text
constexpr size_t kFirstStack = 64 << 10, kLargestStack = 64 << 20;  // bytes, for patterns that recurse

// Property White_Space, and all other characters. PCRE2's own \s also takes U+180E.
constexpr std::string_view kSpaces = R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNoSpaces =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
constexpr std::string_view kHexDigits = "0-9A-Fa-f";

struct Refused {
  std::string reason;
};

// Oniguruma's pattern -> PCRE2's.
class Translation {
 public:
  explicit Translation(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\') escape();
      else if (in_class_) class_character();
      else character();
    }
    return std::move(out_);
  }

 private:
  void copy(size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ = std::min(at_ + count, pattern_.size());
  }

  void escape() {
    const char letter = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    if (letter == 's') return set(kSpaces, false);
    if (letter == 'S') return in_class_ ? set(kNoSpaces, false) : set(kSpaces, true);
    if (letter == 'w') return set(kWord, false);
    if (letter == 'h') return set(kHexDigits, false);
    if (letter == 'u') return code_point();
    if ((letter == 'W' || letter == 'H') && !in_class_) return set(letter == 'W' ? kWord : kHexDigits, true);
    if (letter == 'W' || letter == 'H' || letter == 'C') throw Refused{fmt::format("\\{} {}", letter, in_class_ ? "in a class" : "")};
    const std::string_view rest = pattern_.substr(at_);
    const size_t end = rest.substr(std::min<size_t>(2, rest.size())).starts_with('{') ? rest.find('}') : std::string_view::npos;
    copy(end == std::string_view::npos ? 2 : end + 1);  // \p{L} is one character
  }

  // \uHHHH
  void code_point() {
    const std::string_view digits = pattern_.substr(at_ + 2, 4);
    if (digits.size() < 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos) throw Refused{"\\u without four hexadecimal digits"};
    out_ += "\\x{";
    out_ += digits;
    out_ += '}';
    at_ += 6;
  }

  void set(std::string_view members, bool negated) {
    if (!in_class_) out_ += negated ? "[^" : "[";
    out_ += members;
    if (!in_class_) out_ += ']';
    at_ += 2;
  }

  void class_character() {
    const std::string_view rest = pattern_.substr(at_);
    if (rest.starts_with("&&")) throw Refused{"an intersection of classes (&&)"};
    if (rest.starts_with("[:")) {
      const size_t end = rest.find(":]");
      if (end == std::string_view::npos) throw Refused{"'[:' without ':]'"};
      return copy(end + 2);
    }
    if (rest.front() == '[') throw Refused{"a class within a class"};
    if (rest.front() == ']') in_class_ = false;
    copy(1);
  }

  void character() {
    const std::string_view rest = pattern_.substr(at_);
    if (rest.front() == '[') {
      in_class_ = true;
      copy(rest.starts_with("[^") ? 2 : 1);
      if (pattern_.substr(at_).starts_with(']')) copy(1);  // the first one is a member
      return;
    }
    const size_t end = rest.front() == '{' ? rest.find_first_not_of("0123456789,", 1) : std::string_view::npos;
    if (end != std::string_view::npos && rest.substr(end).starts_with("}+")) throw Refused{"'+' after a repeat count"};  // possessive to PCRE2 only
    copy(1);
  }

  std::string_view pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

std::string message_of(int code) {
  PCRE2_UCHAR text[200] = {};
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

const pcre2_code* code_of(const std::shared_ptr<const void>& code) { return static_cast<const pcre2_code*>(code.get()); }

}  // namespace

Result<UnicodeRegex> UnicodeRegex::compile(std::string_view pattern, const std::string& where) {
  if (pattern.size() > kPatternLimit) return error(Code::kDataLoss, "{}: expected a pattern of at most {} bytes, found {}", where, kPatternLimit, pattern.size());
  std::string translated;
  try {
    translated = Translation(pattern).run();
  } catch (const Refused& refused) {
    return error(Code::kUnimplemented, "{}: {} is not supported, in the pattern {}", where, refused.reason, utf8_prefix(pattern, kShownBytes));
  }
  int problem = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE, &problem, &offset, nullptr);
  if (code == nullptr) {
    return error(Code::kDataLoss, "{}: {}, in the pattern {}", where, message_of(problem), utf8_prefix(pattern, kShownBytes));
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where there is no JIT compiler, patterns are interpreted
  return UnicodeRegex(std::shared_ptr<const void>(code, [](const void* c) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(c))); }));
}

void UnicodeRegex::Search::Free::operator()(void* data) const { pcre2_match_data_free(static_cast<pcre2_match_data*>(data)); }

UnicodeRegex::Search::Search(const UnicodeRegex& regex)
    : regex_(regex),
      data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr), [](void* c) { pcre2_match_context_free(static_cast<pcre2_match_context*>(c)); }),
      stack_(nullptr, [](void* s) { pcre2_jit_stack_free(static_cast<pcre2_jit_stack*>(s)); }) {
  if (data_ == nullptr || context_ == nullptr) throw std::bad_alloc();
}

int UnicodeRegex::Search::match(std::string_view text, size_t from) {
  auto* context = static_cast<pcre2_match_context*>(context_.get());
  const uint64_t steps = kBaseSteps * (1 + uint64_t{text.size()} / (1 << 20));
  pcre2_set_match_limit(context, static_cast<uint32_t>(std::min<uint64_t>(steps, ~uint32_t{0})));
  return pcre2_match(code_of(regex_.code_), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, PCRE2_NO_UTF_CHECK,
                     static_cast<pcre2_match_data*>(data_.get()), context);
}

std::optional<UnicodeRegex::Match> UnicodeRegex::Search::next(std::string_view text, size_t from) {
  int found = match(text, from);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT && stack_ == nullptr) {
    stack_.reset(pcre2_jit_stack_create(kFirstStack, kLargestStack, nullptr));
    pcre2_jit_stack_assign(static_cast<pcre2_match_context*>(context_.get()), nullptr, stack_.get());
    found = match(text, from);
  }
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0) {
    throw error(Code::kInvalidArgument, "a text of {} bytes, at byte {}: the tokenizer's regular expression gives up: {}", text.size(), from,
                message_of(found));
  }
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(static_cast<pcre2_match_data*>(data_.get()));
  return Match{bounds[0], std::max(bounds[0], bounds[1])};  // \K can put the start behind the end
}

}  // namespace penstock::text
