#include "rpc/http_message.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace penstock::rpc {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

}  // namespace

HttpResponse error_response(int status, std::string_view type, std::string_view message) {
  const nlohmann::ordered_json json = {{"code", status}, {"type", type}, {"message", message}};
  // A message may quote what a client sent, which need not be UTF-8.
  return {status, "application/json", json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n", {}};
}

HttpResponse error_response(const Error& error) {
  const std::string message = error.message();
  switch (error.code()) {
    case Code::kInvalidArgument: return error_response(400, "BadRequestException", message);
    case Code::kNotFound: {
      const bool version = message.starts_with("Model version");
      return error_response(404, version ? "ModelVersionNotFoundException" : "ModelNotFoundException", message);
    }
    case Code::kAlreadyExists: return error_response(409, "ConflictStatusException", message);
    case Code::kPermissionDenied: return error_response(403, "InvalidKeyException", message);
    case Code::kResourceExhausted: {
      HttpResponse response = error_response(429, "ServiceUnavailableException", message);
      response.headers.emplace_back("Retry-After", "1");
      return response;
    }
    case Code::kUnavailable: return error_response(503, "ServiceUnavailableException", message);
    case Code::kDeadlineExceeded: return error_response(504, "RequestTimeoutException", message);
    case Code::kUnimplemented: return error_response(501, "NotImplementedException", message);
    default: return error_response(500, "InternalServerException", message);
  }
}

HttpResponse token_refusal(const Error& refused) {
  if (refused.code() == Code::kPermissionDenied) return error_response(400, "InvalidKeyException", refused.message());
  HttpResponse response = error_response(429, "InvalidKeyException", refused.message());
  response.headers.emplace_back("Retry-After", "60");
  return response;
}

std::optional<std::string> decode_url(std::string_view text, bool plus_is_space) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      const int high = i + 1 < text.size() ? hex_digit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
      if (high < 0 || low < 0 || (high == 0 && low == 0)) return std::nullopt;
      out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      out += plus_is_space && text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

std::optional<std::map<std::string, std::string>> decode_query(std::string_view text) {
  std::map<std::string, std::string> values;
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), pair.size() + 1));
    const size_t equals = std::min(pair.find('='), pair.size());
    const auto name = decode_url(pair.substr(0, equals), true);
    const auto value = decode_url(pair.substr(std::min(pair.size(), equals + 1)), true);
    if (!name || !value) return std::nullopt;
    if (!name->empty()) values[*name] = *value;
  }
  return values;
}

}  // namespace penstock::rpc
