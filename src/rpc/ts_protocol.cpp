#include "rpc/ts_protocol.h"

#include <optional>
#include <string_view>
#include <utility>

#include "base/utf8.h"

namespace penstock::rpc {
namespace {

constexpr int32_t kEnd = -1;            // in place of a length: the list is over
constexpr size_t kMaxAnswers = 65536;   // of one message
constexpr size_t kShownBytes = 100;     // of a client's name, in messages

void put_number(std::string& out, int32_t number) {
  const auto bits = static_cast<uint32_t>(number);
  for (const int shift : {24, 16, 8, 0}) out += static_cast<char>((bits >> shift) & 0xFF);
}

void put_text(std::string& out, std::string_view text) {
  PENSTOCK_CHECK(text.size() <= static_cast<size_t>(kMaxTsBytes), "a field of {} bytes for a Python worker", text.size());
  put_number(out, static_cast<int32_t>(text.size()));
  out += text;
}

bool is_utf8(std::string_view text) { return find_invalid_utf8(text) == std::string_view::npos; }

Error not_utf8(const std::string& what) { return error(Code::kInvalidArgument, "{} is not UTF-8, which the model's Python handler needs", what); }

// Reads one field after the other; after the first that is wrong, the rest is empty and failure() says what was.
class Reader {
 public:
  explicit Reader(const ReadBytes& read) : read_(read) {}

  int32_t number() {
    const std::string bytes = take(4);
    uint32_t bits = 0;
    for (const char byte : bytes) bits = (bits << 8) | static_cast<unsigned char>(byte);
    return static_cast<int32_t>(bits);
  }
  std::string text() { return sized(number()); }
  // nullopt: the end of a list.
  std::optional<std::string> text_or_end() {
    const int32_t size = number();
    if (failure_ || size == kEnd) return std::nullopt;
    return sized(size);
  }
  void fail(Error error) {
    if (!failure_) failure_ = std::move(error);
  }
  [[nodiscard]] const std::optional<Error>& failure() const { return failure_; }

 private:
  std::string sized(int32_t size) {
    if (size < 0 || size > kMaxTsBytes) fail(error(Code::kInternal, "a Python worker sent a length of {}; expected 0 to {}", size, kMaxTsBytes));
    return failure_ ? "" : take(static_cast<size_t>(size));
  }
  std::string take(size_t count) {
    if (failure_ || count == 0) return "";
    auto bytes = read_(count);
    if (bytes) return std::move(*bytes);
    failure_ = bytes.error();
    return "";
  }

  const ReadBytes& read_;
  std::optional<Error> failure_;
};

TsAnswer read_answer(Reader& reader, std::string request) {
  TsAnswer answer;
  answer.request = std::move(request);
  answer.head.content_type = reader.text();
  const int32_t status = reader.number();
  answer.head.status = status == 0 ? 200 : status;
  (void)reader.text();  // the status in words
  const int32_t headers = reader.number();
  if (headers < 0 || static_cast<size_t>(headers) > handler::kMaxHeaders) {
    reader.fail(error(Code::kInternal, "a Python worker sent {} headers; expected 0 to {}", headers, handler::kMaxHeaders));
  }
  for (int32_t i = 0; i < headers && !reader.failure(); ++i) {
    std::string name = reader.text();
    answer.head.headers.emplace_back(std::move(name), reader.text());
  }
  answer.bytes = reader.text();
  const std::string* next = handler::find_header(answer.head.headers, "ts_stream_next");
  answer.last = !next || *next != "true";
  return answer;
}

}  // namespace

std::string encode_load(const TsLoad& load) {
  std::string out = "L";
  put_text(out, load.model);
  put_text(out, load.folder);
  put_number(out, load.batch_size);
  put_text(out, load.handler);
  put_number(out, load.gpu);
  put_text(out, load.envelope);
  out += load.limit_image_pixels ? '\1' : '\0';
  return out;
}

std::string encode_predict(const std::vector<TsRequest>& batch) {
  std::string out = "I";
  for (const auto& [id, request] : batch) {
    put_text(out, id);
    for (const auto& [name, value] : request->headers) {
      put_text(out, name);
      put_text(out, value);
    }
    put_number(out, kEnd);
    for (const handler::Part& part : request->parts) {
      put_text(out, part.name);
      put_text(out, part.content_type);
      put_text(out, part.bytes);
    }
    put_number(out, kEnd);
  }
  put_number(out, kEnd);
  return out;
}

std::optional<Error> check_ts_request(const handler::Request& request) {
  for (const auto& [name, value] : request.headers) {
    if (!is_utf8(name)) return not_utf8("a header's name");
    if (!is_utf8(value)) return not_utf8(fmt::format("header '{}'", utf8_prefix(name, kShownBytes)));
  }
  for (const handler::Part& part : request.parts) {
    if (!is_utf8(part.name)) return not_utf8("an input's name");
    if (!is_utf8(part.content_type)) return not_utf8(fmt::format("the content type of input '{}'", utf8_prefix(part.name, kShownBytes)));
  }
  return std::nullopt;
}

Result<TsResponse> read_response(const ReadBytes& read) {
  Reader reader(read);
  TsResponse response;
  response.code = reader.number();
  response.message = reader.text();
  while (auto request = reader.text_or_end()) {
    response.answers.push_back(read_answer(reader, std::move(*request)));
    if (response.answers.size() > kMaxAnswers) reader.fail(error(Code::kInternal, "a Python worker sent more than {} answers at once", kMaxAnswers));
    if (reader.failure()) break;
  }
  if (reader.failure()) return *reader.failure();
  return response;
}

}  // namespace penstock::rpc
