#include "agents.pb.h"
#include "fuzz.h"
#include "rpc/agent_wire.h"

// What an agent sends, and what a front door sends it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    agents::v1::Report report;
    if (report.ParseFromArray(data, static_cast<int>(size))) {
      (void)rpc::hello_of(report);
      (void)rpc::ranks_report_of(report);
    }
    agents::v1::Order order;
    if (order.ParseFromArray(data, static_cast<int>(size))) (void)rpc::order_of(order);
  });
}
