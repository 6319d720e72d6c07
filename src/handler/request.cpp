#include "handler/request.h"

#include <algorithm>
#include <cctype>

namespace penstock::handler {
namespace {

bool same_name(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return lower(x) == lower(y); });
}

std::optional<Error> check_headers(const Headers& headers, Code code, const char* whose) {
  if (headers.size() > kMaxHeaders) return error(code, "{}: {} headers; expected at most {}", whose, headers.size(), kMaxHeaders);
  size_t bytes = 0;
  for (const auto& [name, value] : headers) bytes += name.size() + value.size();
  if (bytes > kMaxHeaderBytes) return error(code, "{}: headers of {} bytes; expected at most {}", whose, bytes, kMaxHeaderBytes);
  return std::nullopt;
}

}  // namespace

std::optional<Error> check_request(const Request& request) {
  if (request.parts.size() > kMaxParts) {
    return error(Code::kInvalidArgument, "the request has {} inputs; expected at most {}", request.parts.size(), kMaxParts);
  }
  for (const Part& part : request.parts) {
    const size_t longest = std::max(part.name.size(), part.content_type.size());
    if (longest > kMaxNameBytes) {
      return error(Code::kInvalidArgument, "an input's name or content type has {} bytes; expected at most {}", longest, kMaxNameBytes);
    }
  }
  return check_headers(request.headers, Code::kInvalidArgument, "the request");
}

std::optional<Error> check_head(const AnswerHead& head) {
  if (head.status < 200 || head.status > 599) {  // 1xx is a word before the answer
    return error(Code::kInternal, "the handler answers with status {}; expected one of HTTP, 200 to 599", head.status);
  }
  if (head.content_type.size() > kMaxNameBytes) {
    return error(Code::kInternal, "the handler's content type has {} bytes; expected at most {}", head.content_type.size(), kMaxNameBytes);
  }
  return check_headers(head.headers, Code::kInternal, "the handler's answer");
}

const std::string* find_header(const Headers& headers, std::string_view name) {
  const auto found = std::find_if(headers.begin(), headers.end(), [&](const auto& header) { return same_name(header.first, name); });
  return found == headers.end() ? nullptr : &found->second;
}

}  // namespace penstock::handler
