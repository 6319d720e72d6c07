#include "config/url_rules.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

namespace penstock::config {
namespace {

constexpr uint32_t kMaxSteps = 1'000'000;  // of one match: a bound on time
constexpr uint32_t kMaxHeapKib = 8 << 10;

bool matches(const pcre2_code* code, std::string_view url) {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(pcre2_match_context_create(nullptr),
                                                                                          &pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMaxSteps);
  pcre2_set_heap_limit(context.get(), kMaxHeapKib);
  return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(url.data()), url.size(), 0, 0, data.get(), context.get()) >= 0;
}

}  // namespace

Result<UrlRules> UrlRules::compile(std::span<const std::string> expressions) {
  UrlRules rules;
  for (const std::string& expression : expressions) {
    int failed = 0;
    PCRE2_SIZE at = 0;
    // The flags hold the match to both ends, whatever alternatives the expression has.
    pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                                     PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C, &failed, &at, nullptr);
    if (!code) {
      PCRE2_UCHAR why[256] = {};
      pcre2_get_error_message(failed, why, sizeof why);
      return error(Code::kInvalidArgument, "'{}' is not a regular expression: {} at offset {}", expression.substr(0, 200),
                   reinterpret_cast<const char*>(why), at);
    }
    rules.codes_.emplace_back(code, [](const void* c) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(c))); });
  }
  return rules;
}

bool UrlRules::allow(std::string_view url) const {
  return std::any_of(codes_.begin(), codes_.end(), [&](const auto& code) { return matches(static_cast<const pcre2_code*>(code.get()), url); });
}

}  // namespace penstock::config
