#pragma once
// TorchServe's allowed_urls: from where models may be fetched.
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::config {

// Regular expressions (PCRE2's, which are near Java's), one of which must match a whole URL. None: no URL is allowed.
//
// Threads: const.
class UrlRules {
 public:
  // kInvalidArgument "'...' is not a regular expression: WHY".
  [[nodiscard]] static Result<UrlRules> compile(std::span<const std::string> expressions);
  // An expression that takes more steps than a URL may take does not match.
  [[nodiscard]] bool allow(std::string_view url) const;

 private:
  std::vector<std::shared_ptr<const void>> codes_;  // pcre2_code
};

}  // namespace penstock::config
