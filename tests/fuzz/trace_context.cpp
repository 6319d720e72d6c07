#include "frontend/trace_context.h"
#include "fuzz.h"

// A line of traceparent, then tracestate.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    const auto [parent, state] = fuzz::first_line(fuzz::text_of(data, size));
    (void)frontend::sane_request_id(parent);
    const auto read = frontend::read_trace(parent, 1, state);
    if (!read) return;
    const auto again = frontend::parse_traceparent(frontend::traceparent(*read));
    PENSTOCK_CHECK(again && again->trace == read->trace && again->span == read->span && again->flags == read->flags, "what we pass on says the same");
  });
}
