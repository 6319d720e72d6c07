#pragma once
// The socket protocol of TorchServe's Python worker (ts/model_service_worker.py): whole numbers of 4 bytes, big endian; text and bytes with their
// length before them. Pure: bytes in, bytes out.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "handler/request.h"

namespace penstock::rpc {

struct TsLoad {
  std::string model;
  std::string folder;         // the model's, absolute
  int batch_size = 1;
  std::string handler;        // as the manifest says: "service.py", "service:handle", "image_classifier"
  int gpu = -1;               // -1: CPU
  std::string envelope;
  bool limit_image_pixels = true;
};
[[nodiscard]] std::string encode_load(const TsLoad& load);

struct TsRequest {
  std::string id;                               // by which it is answered; no other of the batch has it
  const handler::Request* request = nullptr;    // whose own id is not sent
};
[[nodiscard]] std::string encode_predict(const std::vector<TsRequest>& batch);

// The worker takes headers, names and content types for UTF-8, and dies of what is not. kInvalidArgument naming it.
[[nodiscard]] std::optional<Error> check_ts_request(const handler::Request& request);

// One message of the worker: the answer to LOAD (no answers), or answers to requests of the batch that runs.
struct TsAnswer {
  std::string request;        // its id
  handler::AnswerHead head;   // status 200 where the worker says none
  std::string bytes;
  bool last = true;           // false: its header ts_stream_next says that more will come
};
struct TsResponse {
  int code = 0;               // as in HTTP; not 200: it is for the whole batch, and the answers do not count
  std::string message;
  std::vector<TsAnswer> answers;
};

// The next `count` bytes of the connection, or why there are none.
using ReadBytes = std::function<Result<std::string>(size_t count)>;

inline constexpr int32_t kMaxTsBytes = 512 << 20;  // of one field

// Errors: those of `read`; kInternal: what comes is not the protocol: a negative or too large length, too many answers or headers.
[[nodiscard]] Result<TsResponse> read_response(const ReadBytes& read);

}  // namespace penstock::rpc
