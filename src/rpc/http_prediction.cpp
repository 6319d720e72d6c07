#include "rpc/http_prediction.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "rpc/http_answers.h"
#include "rpc/http_forms.h"
#include "rpc/sequence_mark.h"
#include "rpc/text_format.h"
#include "text/generation_request.h"
#include "text/json_input.h"

namespace penstock::rpc {
namespace {

constexpr const char* kPathHeader = "url_path";

std::string header_of(const HttpRequest& http, std::string_view name) {
  const std::string* value = handler::find_header(http.headers, name);
  return value ? *value : "";
}

// Adds a header to an answer, whoever gives it.
class WithHeader final : public HttpReply {
 public:
  WithHeader(std::shared_ptr<HttpReply> reply, std::string name, std::string value)
      : reply_(std::move(reply)), name_(std::move(name)), value_(std::move(value)) {}
  void send(HttpResponse response) override { reply_->send(with_header(std::move(response))); }
  bool can_stream() const override { return reply_->can_stream(); }
  void begin_stream(HttpResponse head) override { reply_->begin_stream(with_header(std::move(head))); }
  bool chunk(std::string text) override { return reply_->chunk(std::move(text)); }
  void end_stream(const std::optional<Error>& failure) override { reply_->end_stream(failure); }
  void when_gone(std::function<void()> gone) override { reply_->when_gone(std::move(gone)); }

 private:
  [[nodiscard]] HttpResponse with_header(HttpResponse response) const {
    const bool given = handler::find_header(response.headers, name_) != nullptr;  // the handler knows better
    if (!given) response.headers.emplace_back(name_, value_);
    return response;
  }
  const std::shared_ptr<HttpReply> reply_;
  const std::string name_;
  const std::string value_;
};

// The text that a client means: a form's field, or the whole body.
Result<std::string> text_of(const HttpRequest& http) {
  auto parts = body_parts(header_of(http, "Content-Type"), http.body);
  if (!parts) return parts.error();
  for (const std::string_view name : {"data", "prompt", "body"}) {
    const auto found = std::find_if(parts->begin(), parts->end(), [&](const handler::Part& part) { return part.name == name; });
    if (found != parts->end()) return std::move(found->bytes);
  }
  // `curl -d 'Once upon a time'` calls the text a form, and it is none.
  if (!header_of(http, "Content-Type").starts_with("multipart/")) return http.body;
  return Error(Code::kInvalidArgument, "the form has no field 'data'; expected a prompt or a JSON object in it");
}

struct AnswerForm {
  bool streams = false;
  bool as_json = false;  // {"text": ...}
};

// How the client wants its answer. "stream" is taken out of a JSON body: it is not the generation's business. max_new_tokens is what clients of
// TorchServe's handlers for large models send, and those answer in JSON, streamed.
Result<AnswerForm> take_answer_form(std::string& body) {
  const size_t first = body.find_first_not_of(" \t\r\n");
  const bool may_say = body.find("\"stream\"") != std::string::npos || body.find("\"max_new_tokens\"") != std::string::npos;
  if (first == std::string::npos || body[first] != '{' || !may_say || body.size() > text::kMaxRequestBytes) return AnswerForm();
  auto json = text::parse_ordered_json(body, "the request", Code::kInvalidArgument, text::kRequestDepth);  // schemas in it keep their order
  if (!json) return json.error();
  AnswerForm form;
  form.as_json = form.streams = json->contains("max_new_tokens");
  const auto found = json->find("stream");
  if (found == json->end()) return form;
  if (!found->is_boolean()) return error(Code::kInvalidArgument, "stream: expected true or false, found {}", text::shown(nlohmann::json(*found)));
  form.streams = *found;
  json->erase(found);
  body = json->dump();
  return form;
}

Result<HttpPrediction> text_prediction(const HttpRequest& http, const std::shared_ptr<HttpReply>& reply, size_t max_response_bytes) {
  auto body = text_of(http);
  if (!body) return body.error();
  auto form = take_answer_form(*body);
  if (!form) return form.error();
  auto request = text::parse_generation_request(*body);
  if (!request) return request.error();
  auto observer = make_text_answer(reply, form->as_json ? make_json_format() : make_plain_format(), form->streams, max_response_bytes);
  return HttpPrediction{std::move(*request), {}, std::move(observer)};
}

Result<HttpPrediction> bytes_prediction(const HttpRequest& http, const std::shared_ptr<HttpReply>& reply, const HttpPredictionOptions& options) {
  auto parts = body_parts(header_of(http, "Content-Type"), http.body);
  if (!parts) return parts.error();
  handler::Request request{http.id, http.headers, std::move(*parts)};
  if (options.query_is_input) {
    for (const auto& [name, value] : http.query) request.parts.push_back({name, "", value});
  }
  std::erase_if(request.headers, [](const auto& header) { return header.first == kPathHeader; });
  if (const auto path = http.parameters.find(kPathHeader); path != http.parameters.end()) request.headers.emplace_back(kPathHeader, path->second);
  if (auto bad = check_request(request)) return *bad;
  return HttpPrediction{std::move(request), {}, make_bytes_answer(reply, options.max_response_bytes)};
}

}  // namespace

Result<HttpPrediction> make_http_prediction(const HttpRequest& http, const frontend::ServedModel& model, const std::shared_ptr<HttpReply>& reply,
                                            const HttpPredictionOptions& options) {
  const config::ServerConfig& server = model.server();
  const std::string* id = handler::find_header(http.headers, server.sequence_id_header);
  const bool last = header_of(http, server.sequence_end_header) == "true";
  auto sequence = mark_sequence(model, id ? std::optional(*id) : std::nullopt, last);
  if (!sequence) return sequence.error();
  std::shared_ptr<HttpReply> to = reply;
  if (*sequence) to = std::make_shared<WithHeader>(reply, server.sequence_id_header, (*sequence)->id);
  const bool is_text = model.spec().handler_kind == frontend::HandlerKind::kText;
  auto prediction = is_text ? text_prediction(http, to, options.max_response_bytes) : bytes_prediction(http, to, options);
  if (!prediction || !*sequence) return prediction;
  tell_sequence(model, **sequence, prediction->payload);
  prediction->sequence = std::move(*sequence);
  return prediction;
}

}  // namespace penstock::rpc
