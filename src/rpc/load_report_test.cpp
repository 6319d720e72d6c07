#include "rpc/load_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace penstock::rpc {
namespace {

using testing::HasSubstr;

Clock::time_point at(int ms) { return Clock::time_point(seconds(100)) + milliseconds(ms); }

// A request that was sent, and whose messages of one token came, at these milliseconds.
LoadResult result(int sent, const std::vector<int>& messages, int prompt_tokens = 10) {
  LoadResult made;
  made.sent = at(sent);
  for (const int ms : messages) made.messages.push_back(at(ms));
  made.tokens.assign(messages.size(), 1);
  made.prompt_tokens = prompt_tokens;
  made.completion_tokens = static_cast<int>(messages.size());
  return made;
}

LoadResult failed(int sent, Code code, const std::string& message) {
  LoadResult made;
  made.sent = at(sent);
  made.failure = Error(code, message);
  return made;
}

TEST(LoadReport, HasTheFiguresThatFollowFromTheTimes) {
  // ttft 20, 30; e2el 60, 30; tpot (60 - 20) / 2 = 20 of the first alone; itl 10, 30.
  const LoadReport report = make_load_report({result(0, {20, 30, 60}), result(40, {70})}, {50, 100}, {});
  EXPECT_EQ(report.completed, 2);
  EXPECT_EQ(report.failed, 0);
  EXPECT_DOUBLE_EQ(report.duration, 0.07);
  EXPECT_EQ(report.prompt_tokens, 20);
  EXPECT_EQ(report.completion_tokens, 4);
  EXPECT_EQ(report.most_at_once, 2);
  EXPECT_EQ(report.most_tokens_per_second, 4);
  EXPECT_DOUBLE_EQ(report.ttft.mean, 25);
  EXPECT_DOUBLE_EQ(report.ttft.deviation, 5);
  EXPECT_DOUBLE_EQ(report.tpot.mean, 20);
  EXPECT_DOUBLE_EQ(report.itl.mean, 20);
  EXPECT_DOUBLE_EQ(report.e2el.mean, 45);
  EXPECT_EQ(report.ttft.percentiles, (std::vector<double>{25, 30}));
}

TEST(LoadReport, FailuresAreCountedByNameAndInNoOtherFigure) {
  const LoadReport report = make_load_report({result(0, {20, 30}), failed(5, Code::kResourceExhausted, "the queue is full"),
                                              failed(6, Code::kResourceExhausted, "the queue is full"), failed(7, Code::kDeadlineExceeded, "late")}, {99}, {});
  EXPECT_EQ(report.completed, 1);
  EXPECT_EQ(report.failed, 3);
  EXPECT_EQ(report.failures.at("resource exhausted").count, 2);
  EXPECT_EQ(report.failures.at("deadline exceeded").count, 1);
  EXPECT_EQ(report.most_at_once, 1);
  EXPECT_DOUBLE_EQ(report.e2el.mean, 30);
  EXPECT_THAT(load_table(report, {}), HasSubstr("2 x resource exhausted: the queue is full"));
}

TEST(LoadReport, GoalsAreKeptOrNot) {
  const LoadGoals goals{.ttft = 0.02, .tpot = 0.02, .e2el = 0.06};
  EXPECT_EQ(make_load_report({result(0, {20, 30, 60}), result(0, {21}), result(0, {1, 61}), result(0, {10, 40})}, {}, goals).good, 1) << "30 ms a token is too slow, too";
  EXPECT_EQ(make_load_report({result(0, {20, 30, 60}), result(0, {500, 900})}, {}, {}).good, 2);
}

TEST(LoadReport, WithoutAnAnswerNothingIsDividedByZero) {
  const LoadReport report = make_load_report({failed(0, Code::kUnavailable, "gone")}, {50}, {});
  EXPECT_EQ(nlohmann::json::parse(load_json(report, {}))["request_throughput"], 0);
  EXPECT_EQ(make_load_report({}, {50}, {}).duration, 0);
}

TEST(LoadReport, JsonHasTheNamesOfVllm) {
  const LoadGoals goals{.ttft = 1};
  const auto json = nlohmann::json::parse(load_json(make_load_report({result(0, {500, 1000})}, {50, 99, 99.9}, goals), goals));
  EXPECT_EQ(json["completed"], 1);
  EXPECT_EQ(json["total_input_tokens"], 10);
  EXPECT_EQ(json["total_output_tokens"], 2);
  EXPECT_EQ(json["request_throughput"], 1);
  EXPECT_EQ(json["output_throughput"], 2);
  EXPECT_EQ(json["total_token_throughput"], 12);
  EXPECT_EQ(json["request_goodput"], 1);
  EXPECT_EQ(json["median_ttft_ms"], 500);
  EXPECT_EQ(json["p99.9_e2el_ms"], 1000);
  for (const char* key : {"mean_tpot_ms", "std_itl_ms", "p99_tpot_ms", "max_output_tokens_per_s", "max_concurrent_requests", "errors"}) EXPECT_TRUE(json.contains(key)) << key;
}

TEST(LoadReport, PercentilesAreLinearBetweenNeighbours) {
  std::vector<double> values = {4, 1, 3, 2};
  EXPECT_DOUBLE_EQ(percentile(values, 0), 1);
  EXPECT_DOUBLE_EQ(percentile(values, 50), 2.5);
  EXPECT_DOUBLE_EQ(percentile(values, 90), 3.7);
  EXPECT_DOUBLE_EQ(percentile(values, 100), 4);
  std::vector<double> none;
  EXPECT_EQ(percentile(none, 50), 0);
}

}  // namespace
}  // namespace penstock::rpc
