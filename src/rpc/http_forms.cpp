#include "rpc/http_forms.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "rpc/http_message.h"

namespace penstock::rpc {
namespace {

using handler::Part;

constexpr size_t kMaxBoundary = 70;           // RFC 2046
constexpr size_t kMaxFieldHeader = 8 << 10;   // bytes, of one field

Error broken(std::string_view what) { return error(Code::kInvalidArgument, "the body is no multipart/form-data: {}", what); }

bool same_word(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [&](char x, char y) { return lower(x) == lower(y); });
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(" \t") + 1 - first);
}

// "form-data; name=\"a\"" as its first word and its parameters, one after another.
class HeaderValue {
 public:
  explicit HeaderValue(std::string_view text) : rest_(text) { word_ = trimmed(take_until(";")); }

  [[nodiscard]] std::string_view word() const { return word_; }

  // The next parameter; nullopt: there is none, or it cannot be read (then broken()).
  std::optional<std::pair<std::string_view, std::string>> next() {
    if (rest_.empty()) return std::nullopt;
    rest_.remove_prefix(1);  // ';'
    const std::string_view name = trimmed(take_until("=;"));
    if (!rest_.starts_with('=')) {
      broken_ = !name.empty() || !rest_.empty();
      return std::nullopt;
    }
    rest_.remove_prefix(1);
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t"), rest_.size()));
    if (!rest_.starts_with('"')) return std::pair(name, std::string(trimmed(take_until(";"))));
    auto value = take_quoted();
    broken_ = !value || !trimmed(take_until(";")).empty();
    if (broken_) return std::nullopt;
    return std::pair(name, std::move(*value));
  }
  [[nodiscard]] bool broken() const { return broken_; }

 private:
  std::string_view take_until(std::string_view ends) {
    const std::string_view taken = rest_.substr(0, rest_.find_first_of(ends));
    rest_.remove_prefix(taken.size());
    return taken;
  }
  std::optional<std::string> take_quoted() {
    std::string value;
    for (size_t i = 1; i < rest_.size(); ++i) {
      if (rest_[i] == '"') {
        rest_.remove_prefix(i + 1);
        return value;
      }
      // A backslash quotes a quote or itself only: some clients put Windows paths between the quotes.
      const bool quotes = rest_[i] == '\\' && i + 1 < rest_.size() && (rest_[i + 1] == '"' || rest_[i + 1] == '\\');
      value += rest_[quotes ? ++i : i];
    }
    return std::nullopt;
  }

  std::string_view rest_;
  std::string_view word_;
  bool broken_ = false;
};

// The value of one parameter; nullopt: it is not there, or the header cannot be read.
std::optional<std::string> parameter(std::string_view header, std::string_view wanted) {
  HeaderValue value(header);
  std::optional<std::string> found;
  while (auto pair = value.next()) {
    if (!found && same_word(pair->first, wanted)) found = std::move(pair->second);
  }
  return value.broken() ? std::nullopt : found;
}

// The lines of a field's header into its name and type.
std::optional<Error> read_field_header(std::string_view header, Part& part) {
  bool named = false;
  while (!header.empty()) {
    const std::string_view line = header.substr(0, header.find("\r\n"));
    header.remove_prefix(std::min(header.size(), line.size() + 2));
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return broken("a field's header has a line without ':'");
    const std::string_view name = trimmed(line.substr(0, colon)), value = trimmed(line.substr(colon + 1));
    if (same_word(name, "Content-Type")) part.content_type = value;
    if (same_word(name, "Content-Transfer-Encoding") && !same_word(value, "binary") && !same_word(value, "8bit") && !same_word(value, "7bit")) {
      return broken("a field is encoded (Content-Transfer-Encoding); expected binary");
    }
    if (!same_word(name, "Content-Disposition")) continue;
    auto field = parameter(value, "name");
    if (named || !field || !same_word(HeaderValue(value).word(), "form-data")) {
      return broken("expected Content-Disposition: form-data; name=\"...\", once for each field");
    }
    part.name = std::move(*field);
    named = true;
  }
  if (!named) return broken("a field has no name");
  return std::nullopt;
}

// The field that begins after a delimiter's line; `rest` is left behind the next delimiter.
Result<Part> take_field(std::string_view& rest, std::string_view delimiter) {
  Part part;
  const size_t header_end = rest.substr(0, kMaxFieldHeader + 4).find("\r\n\r\n");
  if (header_end == std::string_view::npos) return broken(fmt::format("a field's header does not end within {} bytes", kMaxFieldHeader));
  if (auto problem = read_field_header(rest.substr(0, header_end), part)) return *problem;
  rest.remove_prefix(header_end + 2);  // the line end that is left begins the delimiter, if the field has no body at all
  const size_t end = rest.find(delimiter);
  if (end == std::string_view::npos) return broken("its last boundary is missing");
  if (end > 0) part.bytes = rest.substr(2, end - 2);
  rest.remove_prefix(end + delimiter.size());
  return part;
}

Result<std::vector<Part>> multipart(std::string_view content_type, std::string_view body) {
  const auto boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > kMaxBoundary) {
    return broken(fmt::format("Content-Type names no boundary of 1 to {} bytes", kMaxBoundary));
  }
  const std::string delimiter = "\r\n--" + *boundary;
  std::string_view rest = body;
  if (rest.starts_with(std::string_view(delimiter).substr(2))) {
    rest.remove_prefix(delimiter.size() - 2);
  } else {
    const size_t first = rest.find(delimiter);  // what stands before it is for readers that know no multipart
    if (first == std::string_view::npos) return broken("its boundary does not occur");
    rest.remove_prefix(first + delimiter.size());
  }
  std::vector<Part> parts;
  while (!rest.starts_with("--")) {
    rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
    if (!rest.starts_with("\r\n")) return broken("a boundary is not followed by the end of its line");
    rest.remove_prefix(2);
    if (parts.size() >= handler::kMaxParts) return broken(fmt::format("more than {} fields", handler::kMaxParts));
    auto part = take_field(rest, delimiter);
    if (!part) return part.error();
    parts.push_back(std::move(*part));
  }
  return parts;
}

Result<std::vector<Part>> urlencoded(std::string_view body) {
  std::vector<Part> parts;
  while (!body.empty()) {
    const std::string_view pair = body.substr(0, body.find('&'));
    body.remove_prefix(std::min(body.size(), pair.size() + 1));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    auto name = decode_url(pair.substr(0, equals), /*plus_is_space=*/true);
    auto value = decode_url(pair.substr(std::min(pair.size(), equals + 1)), /*plus_is_space=*/true);
    if (!name || !value) return Error(Code::kInvalidArgument, "the body is no urlencoded form: a broken % escape");
    if (parts.size() >= handler::kMaxParts) return error(Code::kInvalidArgument, "the form has more than {} fields", handler::kMaxParts);
    parts.push_back({std::move(*name), "", std::move(*value)});
  }
  return parts;
}

}  // namespace

Result<std::vector<Part>> body_parts(std::string_view content_type, std::string body) {
  const std::string_view kind = HeaderValue(content_type).word();
  Result<std::vector<Part>> parts = std::vector<Part>();
  const size_t first = body.find_first_not_of(" \t\r\n");
  const bool looks_like_json = first != std::string::npos && (body[first] == '{' || body[first] == '[');
  if (same_word(kind, "multipart/form-data")) parts = multipart(content_type, body);
  else if (same_word(kind, "application/x-www-form-urlencoded") && !looks_like_json) parts = urlencoded(body);
  else parts->push_back({"body", std::string(content_type), std::move(body)});
  return parts;
}

}  // namespace penstock::rpc
