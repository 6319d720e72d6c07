#include "base/chrome_trace.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace penstock {
namespace {

TraceEvent event(std::string name, int rank, int64_t start_us) {
  return {std::move(name), "forward", rank, 0, start_us, 5, {}};
}

TEST(ChromeTrace, IsWrittenAsMetadataAndCompleteEvents) {
  ChromeTrace trace;
  trace.name_process(1, "rank 1");
  trace.name_thread(1, 2, "reducer");
  trace.add({"bucket 0", "reduction", 1, 2, 100, 7, {{"bytes", int64_t{4096}}, {"share", 0.5}, {"op", "sum"}}});
  EXPECT_EQ(trace.to_json(),
            "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n"
            R"({"name":"process_name","ph":"M","pid":1,"tid":0,"args":{"name":"rank 1"}},)" "\n"
            R"({"name":"process_sort_index","ph":"M","pid":1,"tid":0,"args":{"sort_index":1}},)" "\n"
            R"({"name":"thread_name","ph":"M","pid":1,"tid":2,"args":{"name":"reducer"}},)" "\n"
            R"({"name":"thread_sort_index","ph":"M","pid":1,"tid":2,"args":{"sort_index":2}},)" "\n"
            R"({"name":"bucket 0","cat":"reduction","ph":"X","ts":100,"dur":7,"pid":1,"tid":2,)"
            R"("args":{"bytes":4096,"share":0.5,"op":"sum"}})" "\n]}\n");
}

TEST(ChromeTrace, IsReadBackAsItWasWritten) {
  ChromeTrace trace;
  trace.name_process(0, "rank \"0\"\n");
  trace.name_thread(0, 1, "compute");
  trace.add({"0F0", "forward", 0, 1, int64_t{1} << 50, 3, {{"microbatch", int64_t{0}}, {"ms", 1.25}, {"note", "a\\b"}}});
  const ChromeTrace read = ChromeTrace::parse(trace.to_json()).value();
  EXPECT_EQ(read.events(), trace.events());
  EXPECT_EQ(read.to_json(), trace.to_json());
}

TEST(ChromeTrace, MergesRanksOnOneClock) {
  ChromeTrace all;
  for (int rank = 0; rank < 2; ++rank) {
    ChromeTrace one;
    one.name_process(rank, fmt::format("rank {}", rank));
    one.add(event(fmt::format("{}F0", rank), rank, 1000 - 10 * rank));
    all.append(ChromeTrace::parse(one.to_json()).value());
  }
  all.start_at_zero();
  EXPECT_EQ(all.events(), (std::vector<TraceEvent>{event("0F0", 0, 10), event("1F0", 1, 0)}));
  EXPECT_NE(all.to_json().find("rank 0"), std::string::npos);
  EXPECT_NE(all.to_json().find("rank 1"), std::string::npos);
}

TEST(ChromeTrace, OfNothingIsAValidFile) {
  ChromeTrace trace;
  trace.start_at_zero();
  EXPECT_TRUE(nlohmann::json::parse(trace.to_json()).at("traceEvents").empty());
}

TEST(ChromeTrace, ReplacesBytesThatAreNotUtf8) {
  ChromeTrace trace;
  trace.add(event("bad \xff byte", 0, 0));
  EXPECT_EQ(ChromeTrace::parse(trace.to_json()).value().events()[0].name, "bad \xEF\xBF\xBD byte");
}

TEST(ChromeTrace, SaysWhatIsWrongWithATornFile) {
  ChromeTrace trace;
  trace.add(event("0F0", 0, 0));
  const std::string whole = trace.to_json();
  for (const std::string& bad : {whole.substr(0, whole.size() / 2), std::string(""), std::string("{}"), std::string("[1]"),
                                 std::string(R"({"traceEvents":[{"ph":"X"}]})")}) {
    const auto read = ChromeTrace::parse(bad);
    ASSERT_FALSE(read.ok()) << bad;
    EXPECT_EQ(read.error().code(), Code::kDataLoss);
  }
}

}  // namespace
}  // namespace penstock
