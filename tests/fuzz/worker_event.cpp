#include "fuzz.h"
#include "rpc/worker_messages.h"
#include "worker.pb.h"

// What a worker sends.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    worker::v1::Events events;
    if (!events.ParseFromArray(data, static_cast<int>(size))) return;
    for (auto& event : *events.mutable_events()) {
      if (event.has_end()) {
        (void)rpc::to_error(event.end());
      } else if (const auto told = rpc::to_worker_event(event); told.head) {
        (void)check_head(*told.head);
      }
    }
  });
}
