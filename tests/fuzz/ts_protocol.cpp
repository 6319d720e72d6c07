#include <algorithm>

#include "fuzz.h"
#include "rpc/ts_protocol.h"

// What a Python worker sends, until its connection ends.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    std::string_view rest = fuzz::text_of(data, size);
    const rpc::ReadBytes read = [&rest](size_t count) -> Result<std::string> {
      if (count > rest.size()) return Error(Code::kUnavailable, "the connection has ended");
      std::string bytes(rest.substr(0, count));
      rest.remove_prefix(count);
      return bytes;
    };
    while (!rest.empty()) {
      const auto response = rpc::read_response(read);
      if (!response) return;
      for (const rpc::TsAnswer& answer : response.value().answers) (void)check_head(answer.head);
    }
  });
}
