#include "fuzz.h"
#include "handler/infer_message.h"
#include "handler/tensor_request.h"

// A line with the value of Inference-Header-Content-Length, or an empty one, then the body; answered with its own tensors.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    const auto [length, body] = fuzz::first_line(fuzz::text_of(data, size));
    handler::Request request{"id", {}, {{"body", "", std::string(body)}}};
    if (!length.empty()) request.headers.emplace_back(handler::kInferenceHeader, length);
    const auto parsed = parse_tensor_request(request, {handler::DataType::kUint8, {}});
    if (!parsed) return;
    for (const handler::Tensor& tensor : parsed.value().inputs) {
      const auto bad = check_tensor(tensor);
      PENSTOCK_CHECK(!bad, "{}", bad->message());
    }
    const auto answer = make_tensor_answer(parsed.value(), "model", parsed.value().inputs);
    PENSTOCK_CHECK(answer.ok(), "{}", answer.error().message());
    (void)handler::parse_infer_answer(*answer.value().head, answer.value().bytes);
  });
}
