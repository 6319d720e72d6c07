#pragma once
// Between a job and the HTTP request that it answers. Internal to rpc/.
#include <cstddef>
#include <memory>

#include "frontend/worker_client.h"
#include "rpc/http_message.h"
#include "rpc/text_format.h"

namespace penstock::rpc {

// INTERNAL, and so 500, as TorchServe answers: another try would get the same, so no status that asks for one.
[[nodiscard]] Error answer_too_long(size_t limit);

// A generation's text: in one piece of at most `limit` bytes, or, `streams`, a chunk for each piece. HTTP/1.0 gets one piece.
[[nodiscard]] std::shared_ptr<frontend::RequestObserver> make_text_answer(std::shared_ptr<HttpReply> reply, std::shared_ptr<const TextFormat> format,
                                                                          bool streams, size_t limit);

// A handler's answer, with the handler's status, content type and headers. One that the handler gives in one piece is sent in one piece, one
// in several in as many chunks. HTTP/1.0 gets one piece of at most `limit` bytes. Headers that the transport owns, those that are none
// (a line end inside), and the bytes of an answer that has none by its status (204, 304) are dropped.
[[nodiscard]] std::shared_ptr<frontend::RequestObserver> make_bytes_answer(std::shared_ptr<HttpReply> reply, size_t limit);

}  // namespace penstock::rpc
