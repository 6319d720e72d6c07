#pragma once
// Which sequence a request belongs to. Internal to rpc/.
#include <optional>
#include <string>

#include "base/error.h"
#include "frontend/served_model.h"

namespace penstock::rpc {

inline constexpr size_t kMaxSequenceId = 256;  // bytes

// `given`: the client's id; `last`: its word that the sequence ends with this request. A model with sequenceBatching gives requests without an id
// one of their own ("ts-seq-UUID"); for others, those belong to no sequence. kInvalidArgument for an id that is empty or too long.
[[nodiscard]] Result<std::optional<frontend::JobOptions::Sequence>> mark_sequence(const frontend::ServedModel& model,
                                                                                  const std::optional<std::string>& given, bool last);

// Tells the handler: a request of bytes gets the id as a header, unless the client has sent it.
void tell_sequence(const frontend::ServedModel& model, const frontend::JobOptions::Sequence& sequence, frontend::Payload& payload);

}  // namespace penstock::rpc
