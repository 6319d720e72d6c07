#include "frontend/trace_context.h"

#include <gtest/gtest.h>

namespace penstock::frontend {
namespace {

const std::string kParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(TraceContext, AGoodParentIsReadAndWrittenAgain) {
  const auto context = parse_traceparent(kParent);
  ASSERT_TRUE(context);
  EXPECT_TRUE(context->sampled());
  EXPECT_EQ(to_hex(context->span.data(), 8), "b7ad6b7169203331");
  EXPECT_EQ(traceparent(*context), kParent);
  EXPECT_FALSE(parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")->sampled());
}

TEST(TraceContext, WhatTheStandardForbidsIsNoParent) {
  const std::string trace = "0af7651916cd43dd8448eb211c80319c", span = "b7ad6b7169203331";
  for (const std::string& bad : {
           std::string(), kParent.substr(0, 54), kParent + "-", kParent + "-00", " " + kParent,                          // of version 00
           "ff-" + trace + "-" + span + "-01", "0-" + trace + "-" + span + "-001", "0g-" + trace + "-" + span + "-01",   // versions
           "00-" + std::string(32, '0') + "-" + span + "-01", "00-" + trace + "-" + std::string(16, '0') + "-01",        // zeros
           "00-0AF7651916cd43dd8448eb211c80319c-" + span + "-01", "00-" + trace + "-" + span + "-0x",                    // digits
           "00_" + trace + "-" + span + "-01", "00-" + trace + "_" + span + "-01", "01-" + trace + "-" + span + "-01x",  // separators
       }) {
    EXPECT_FALSE(parse_traceparent(bad)) << bad;
  }
}

TEST(TraceContext, OfALaterVersionWhatWeKnowCounts) {
  const auto context = parse_traceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-what-will-come");
  ASSERT_TRUE(context);
  EXPECT_EQ(traceparent(*context), kParent);
}

TEST(TraceContext, OneParentIsTakenSeveralAreNot) {
  EXPECT_TRUE(read_trace(kParent, 1, ""));
  EXPECT_FALSE(read_trace(kParent, 2, ""));
  EXPECT_FALSE(read_trace("", 0, "a=b"));
}

TEST(TraceContext, StateIsPassedOnOrDroppedAsAWhole) {
  EXPECT_EQ(read_trace(kParent, 1, "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")->state, "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7");
  EXPECT_EQ(read_trace(kParent, 1, "congo=a,Rojo=b")->state, "");
}

TEST(TraceContext, StatesAreCheckedMemberByMember) {
  std::string most, one_more;
  for (int i = 0; i < 32; ++i) most += (i ? ",k" : "k") + std::to_string(i) + "=v";
  for (const std::string& good : {std::string(), std::string("a=1"), std::string("a=1, b=2 ,,c=3"), std::string("1ab@sys=x y"), most}) {
    EXPECT_TRUE(valid_tracestate(good)) << good;
  }
  for (const std::string& bad : {std::string("a"), std::string("=1"), std::string("a="), std::string("A=1"), std::string("1a=1"), std::string("a=1=2"),
                                 std::string("a=\x01"), std::string("a=\xc3\xa4"), std::string("a@=1"), std::string("@b=1"),
                                 std::string("a@b@c=1"), most + ",more=1", "a=" + std::string(257, 'x'), std::string(513, ',')}) {
    EXPECT_FALSE(valid_tracestate(bad)) << bad;
  }
}

TEST(TraceContext, ARequestGetsASpanOnlyIfSpansAreRecorded) {
  const auto caller = parse_traceparent(kParent);
  const RequestTrace recorded = begin_trace(caller, true);
  EXPECT_TRUE(recorded.recorded);
  EXPECT_EQ(recorded.context->trace, caller->trace);
  EXPECT_NE(recorded.context->span, caller->span);
  EXPECT_EQ(recorded.parent, caller->span);

  const RequestTrace passed = begin_trace(caller, false);
  EXPECT_FALSE(passed.recorded);
  EXPECT_EQ(traceparent(*passed.context), kParent);

  const auto silent = parse_traceparent(kParent.substr(0, 53) + "00");
  EXPECT_FALSE(begin_trace(silent, true).recorded) << "its caller has decided against it";

  const RequestTrace begun = begin_trace(std::nullopt, true);
  EXPECT_TRUE(begun.recorded && begun.context->sampled());
  EXPECT_FALSE(begun.parent);
  EXPECT_FALSE(begin_trace(std::nullopt, false).context);
}

TEST(TraceContext, FreshIdsDiffer) {
  EXPECT_NE(new_trace_id(), new_trace_id());
  EXPECT_NE(new_span_id(), new_span_id());
}

TEST(TraceContext, RequestIdsMustBeHarmless) {
  EXPECT_TRUE(sane_request_id("5f0b0a1c-1d2e-4f3a-9b8c-7d6e5f4a3b2c"));
  EXPECT_TRUE(sane_request_id("gateway:42/a+b=@x_y.z"));
  for (const std::string& bad : {std::string(), std::string(129, 'a'), std::string("a b"), std::string("a\r\nb"), std::string("a\"b"), std::string("\xc3\xa4")}) {
    EXPECT_FALSE(sane_request_id(bad)) << bad;
  }
}

}  // namespace
}  // namespace penstock::frontend
