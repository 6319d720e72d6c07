#include "fuzz.h"
#include "rpc/http_request_reactor.h"

// A whole request as it comes from the wire.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  namespace http = boost::beast::http;
  return fuzz::accept_errors([&] {
    http::request_parser<http::string_body> parser;
    parser.header_limit(16 << 10);
    parser.body_limit(1 << 20);
    parser.eager(true);
    boost::beast::error_code failed;
    for (size_t used = 0, taken = 1; used < size && taken > 0 && !failed && !parser.is_done(); used += taken) {
      taken = parser.put(boost::asio::buffer(data + used, size - used), failed);
    }
    if (!parser.is_header_done()) return;
    const auto noted = rpc::note(parser.get(), true);
    PENSTOCK_CHECK(frontend::sane_request_id(noted.request_id), "{}", noted.request_id);
    const bool refused = rpc::ambiguity(parser.get()) != nullptr;
    if (refused || failed || !parser.is_done()) return;
    auto message = parser.release();
    (void)rpc::from_wire(message);
  });
}
