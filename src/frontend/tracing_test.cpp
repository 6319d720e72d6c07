#include "frontend/tracing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>

namespace penstock::frontend {
namespace {

using nlohmann::json;

Span some_span(std::string name = "a") {
  Span span;
  span.trace[15] = 0xAB;
  span.id[7] = 1;
  span.name = std::move(name);
  span.begin = std::chrono::system_clock::time_point(milliseconds(1500));
  span.end = span.begin + milliseconds(2);
  return span;
}

TEST(Tracing, ASpanIsWrittenAsOtlpSaysIt) {
  Span span = some_span();
  span.parent = SpanId{2};
  span.kind = SpanKind::kServer;
  span.state = "x=y";
  span.attributes = {{"model", "m"}};
  span.failure = "broken \xff";  // not UTF-8
  const json sent = json::parse(otlp_json(std::vector<Span>{span, some_span("b")}, "box"));
  const json& resource = sent["resourceSpans"][0];
  EXPECT_EQ(resource["resource"]["attributes"][0], json::parse(R"({"key": "service.name", "value": {"stringValue": "penstock"}})"));
  const json& spans = resource["scopeSpans"][0]["spans"];
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0]["traceId"], std::string(30, '0') + "ab");
  EXPECT_EQ(spans[0]["spanId"], "0000000000000001");
  EXPECT_EQ(spans[0]["parentSpanId"], "0200000000000000");
  EXPECT_EQ(spans[0]["traceState"], "x=y");
  EXPECT_EQ(spans[0]["kind"], 2);
  EXPECT_EQ(spans[0]["startTimeUnixNano"], "1500000000");
  EXPECT_EQ(spans[0]["endTimeUnixNano"], "1502000000");
  EXPECT_EQ(spans[0]["attributes"][0]["value"]["stringValue"], "m");
  EXPECT_EQ(spans[0]["status"]["code"], 2);
  EXPECT_FALSE(spans[1].contains("parentSpanId"));
  EXPECT_TRUE(spans[1]["status"].empty());
}

TEST(Tracing, WhatWaitsIsSentAtTheEndInBatchesOfTheirSize) {
  std::vector<size_t> batches;  // the exporter's thread's, until it has ended
  {
    SpanExporter exporter({.hostname = "box", .max_batch = 2, .interval = seconds(3600)}, [&](const std::string& body, Deadline) {
      batches.push_back(json::parse(body)["resourceSpans"][0]["scopeSpans"][0]["spans"].size());
      return std::nullopt;
    });
    for (int i = 0; i < 5; ++i) exporter.add(some_span());
  }
  EXPECT_THAT(batches, testing::ElementsAre(2, 2, 1));
}

TEST(Tracing, ACollectorThatHangsCostsSpansAndNoTime) {
  std::promise<void> hang;
  std::shared_future<void> released = hang.get_future().share();
  std::promise<void> began;
  bool first = true;  // the exporter's thread's
  SpanExporter exporter({.hostname = "box", .max_waiting = 10, .max_batch = 1, .interval = milliseconds(1)}, [&](const std::string&, Deadline) {
    if (std::exchange(first, false)) began.set_value();
    released.wait();
    return std::optional<Error>(Error(Code::kUnavailable, "no collector"));
  });
  exporter.add(some_span());
  began.get_future().wait();  // one is under way
  for (int i = 0; i < 15; ++i) exporter.add(some_span());
  EXPECT_EQ(exporter.dropped(), 5u);
  EXPECT_EQ(exporter.sent(), 0u);
  hang.set_value();
}

}  // namespace
}  // namespace penstock::frontend
