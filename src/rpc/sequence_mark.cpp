#include "rpc/sequence_mark.h"

#include "base/uuid.h"

namespace penstock::rpc {

Result<std::optional<frontend::JobOptions::Sequence>> mark_sequence(const frontend::ServedModel& model, const std::optional<std::string>& given,
                                                                    bool last) {
  if (given && (given->empty() || given->size() > kMaxSequenceId)) {
    return error(Code::kInvalidArgument, "sequence id: expected 1 to {} bytes, found {}", kMaxSequenceId, given->size());
  }
  if (!given && !model.spec().config.sequences.batching) return std::optional<frontend::JobOptions::Sequence>();
  return std::optional(frontend::JobOptions::Sequence{given ? *given : "ts-seq-" + make_uuid(), last, model.server().sequence_start_header});
}

void tell_sequence(const frontend::ServedModel& model, const frontend::JobOptions::Sequence& sequence, frontend::Payload& payload) {
  auto* request = std::get_if<handler::Request>(&payload);
  const std::string& name = model.server().sequence_id_header;
  if (request && !handler::find_header(request->headers, name)) request->headers.emplace_back(name, sequence.id);
}

}  // namespace penstock::rpc
