#include "fake_handler.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

namespace penstock::tests {
namespace {

std::string rule_of(const handler::Request& request) {
  if (const std::string* header = handler::find_header(request.headers, "x-rule")) return *header;
  const auto part = std::find_if(request.parts.begin(), request.parts.end(), [](const auto& p) { return p.name == "rule"; });
  return part == request.parts.end() ? "" : part->bytes;
}

std::vector<std::string> lines_of(handler::Request& request) {
  std::sort(request.parts.begin(), request.parts.end(), [](const auto& a, const auto& b) { return a.name < b.name; });  // a map has no order
  std::vector<std::string> lines;
  for (const handler::Part& part : request.parts) {
    if (part.name != "rule") lines.push_back(fmt::format("{} [{}] {}\n", part.name, part.content_type, part.bytes));
  }
  return lines;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line;
  return text;
}

}  // namespace

Result<handler::RequestId> FakeHandler::submit(handler::Request request, std::shared_ptr<handler::AnswerSink> sink) {
  handler::RequestId id = 0;
  {
    MutexLock lock(mutex_);
    id = next_id_++;
  }
  const std::string rule = rule_of(request);
  const auto lines = lines_of(request);
  handler::AnswerHead head{200, "text/plain", {{"x-known-id", request.id}}};
  if (rule == "crash") std::abort();
  if (rule == "fail") return Error(Code::kInternal, "the fake handler was told to fail");
  if (rule == "unspeakable") return Error(Code::kInvalidArgument, "no word: \xFF\xFE");
  if (rule.starts_with("status ")) head.status = std::atoi(rule.c_str() + 7);
  if (rule == "head") head.headers = {{"X-Split", "a\r\nSet-Cookie: b"}, {"Transfer-Encoding", "gzip"}, {"Content-Length", "3"}, {"", "x"}, {"X-Good", "1"}};
  if (rule == "headers") {
    std::string text;
    for (const auto& [name, value] : request.headers) text += name + ": " + value + "\n";
    (void)sink->push({head, text, true, {}});
  } else if (rule == "pieces") {
    (void)sink->push({head, "", false, {}});
    for (const std::string& line : lines) (void)sink->push({std::nullopt, line, false, {}});
    (void)sink->push({std::nullopt, "", true, {}});
  } else if (rule == "break") {
    (void)sink->push({head, "begun\n", false, {}});
    (void)sink->push({std::nullopt, "", true, Error(Code::kInternal, "the fake handler was told to break")});
  } else if (rule == "hang") {
    (void)sink->push({head, joined(lines), false, {}});
    MutexLock lock(mutex_);
    hanging_.emplace(id, std::move(sink));
  } else {
    (void)sink->push({head, joined(lines), true, {}});
  }
  return id;
}

void FakeHandler::cancel(handler::RequestId id) {
  MutexLock lock(mutex_);
  if (hanging_.erase(id) > 0) fmt::print(stderr, "request {} cancelled\n", id);
}

}  // namespace penstock::tests
