#include "rpc/load_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

namespace penstock::rpc {
namespace {

double ms(Clock::duration duration) { return 1e3 * to_seconds(duration); }

// All in milliseconds.
struct Samples {
  std::vector<double> ttft, tpot, itl, e2el;
};

// false: it has missed a goal.
bool add_samples(const LoadResult& result, const LoadGoals& goals, Samples& samples) {
  const double ttft = ms(result.messages.front() - result.sent);
  const double e2el = ms(result.messages.back() - result.sent);
  double tpot = 0;
  samples.ttft.push_back(ttft);
  samples.e2el.push_back(e2el);
  if (result.completion_tokens > 1) samples.tpot.push_back(tpot = (e2el - ttft) / (result.completion_tokens - 1));
  for (size_t i = 1; i < result.messages.size(); ++i) samples.itl.push_back(ms(result.messages[i] - result.messages[i - 1]));
  const auto kept = [](double value_ms, double goal) { return goal <= 0 || value_ms <= 1e3 * goal; };
  return kept(ttft, goals.ttft) && kept(tpot, goals.tpot) && kept(e2el, goals.e2el);
}

LoadStatistics statistics_of(std::vector<double> values, const std::vector<double>& percentiles) {
  LoadStatistics result;
  const auto count = static_cast<double>(std::max<size_t>(1, values.size()));
  result.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double value : values) squares += (value - result.mean) * (value - result.mean);
  result.deviation = std::sqrt(squares / count);
  for (const double percent : percentiles) result.percentiles.push_back(percentile(values, percent));
  return result;
}

int most_at_once(const std::vector<const LoadResult*>& completed) {
  std::vector<std::pair<Clock::time_point, int>> changes;
  for (const LoadResult* result : completed) {
    changes.emplace_back(result->sent, 1);
    changes.emplace_back(result->messages.back(), -1);
  }
  std::sort(changes.begin(), changes.end());  // of the same time, ends first
  int now = 0, most = 0;
  for (const auto& [when, change] : changes) most = std::max(most, now += change);
  return most;
}

int64_t most_tokens_per_second(const std::vector<const LoadResult*>& completed, Clock::time_point begin) {
  std::map<int64_t, int64_t> by_second;
  for (const LoadResult* result : completed) {
    for (size_t i = 0; i < result->messages.size(); ++i) {
      by_second[std::chrono::duration_cast<seconds>(result->messages[i] - begin).count()] += result->tokens[i];
    }
  }
  int64_t most = 0;
  for (const auto& [second, tokens] : by_second) most = std::max(most, tokens);
  return most;
}

double per_second(double amount, double duration) { return duration > 0 ? amount / duration : 0; }

struct NamedStatistics {
  const char* key;
  const char* title;
  const LoadStatistics& values;
};
std::vector<NamedStatistics> named(const LoadReport& report) {
  return {{"ttft", "time to first token", report.ttft},
          {"tpot", "time per output token, without the first", report.tpot},
          {"itl", "between two messages", report.itl},
          {"e2el", "whole request", report.e2el}};
}

std::string percent_name(double percent) { return fmt::format("p{:g}", percent); }

}  // namespace

double percentile(std::vector<double>& values, double percent) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double place = percent / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

LoadReport make_load_report(const std::vector<LoadResult>& results, const std::vector<double>& percentiles, const LoadGoals& goals) {
  LoadReport report;
  report.percentiles = percentiles;
  Samples samples;
  std::vector<const LoadResult*> completed;
  auto begin = Clock::time_point::max(), end = Clock::time_point::min();
  for (const LoadResult& result : results) {
    begin = std::min(begin, result.sent);
    if (!result.messages.empty()) end = std::max(end, result.messages.back());
    if (result.failure) {
      LoadReport::Failure& failure = report.failures[std::string(to_string(result.failure->code()))];
      if (failure.count++ == 0) failure.example = result.failure->message();
      ++report.failed;
      continue;
    }
    completed.push_back(&result);
    report.good += add_samples(result, goals, samples) ? 1 : 0;
    report.prompt_tokens += result.prompt_tokens;
    report.completion_tokens += result.completion_tokens;
  }
  report.completed = static_cast<int>(completed.size());
  if (end > begin) report.duration = to_seconds(end - begin);
  report.most_at_once = most_at_once(completed);
  report.most_tokens_per_second = most_tokens_per_second(completed, begin);
  report.ttft = statistics_of(std::move(samples.ttft), percentiles);
  report.tpot = statistics_of(std::move(samples.tpot), percentiles);
  report.itl = statistics_of(std::move(samples.itl), percentiles);
  report.e2el = statistics_of(std::move(samples.e2el), percentiles);
  return report;
}

std::string load_table(const LoadReport& report, const LoadGoals& goals) {
  const double duration = report.duration;
  std::string text = fmt::format("requests           {} completed, {} failed, in {:.2f} s, at most {} at once\n", report.completed, report.failed, duration, report.most_at_once);
  for (const auto& [code, failure] : report.failures) text += fmt::format("  failed           {} x {}: {}\n", failure.count, code, failure.example);
  text += fmt::format("tokens             {} in, {} out\n", report.prompt_tokens, report.completion_tokens);
  text += fmt::format("throughput         {:.2f} requests/s, {:.1f} output tokens/s (best second: {}), {:.1f} tokens/s in all\n", per_second(report.completed, duration),
                      per_second(static_cast<double>(report.completion_tokens), duration), report.most_tokens_per_second,
                      per_second(static_cast<double>(report.prompt_tokens + report.completion_tokens), duration));
  if (goals.any()) text += fmt::format("within the goals   {} requests, {:.2f} requests/s\n", report.good, per_second(report.good, duration));
  text += fmt::format("\n{:<42}{:>10}{:>10}", "milliseconds", "mean", "std");
  for (const double percent : report.percentiles) text += fmt::format("{:>10}", percent_name(percent));
  text += '\n';
  for (const auto& [key, title, values] : named(report)) {
    text += fmt::format("{:<42}{:>10.2f}{:>10.2f}", fmt::format("{:<5} {}", key, title), values.mean, values.deviation);
    for (const double value : values.percentiles) text += fmt::format("{:>10.2f}", value);
    text += '\n';
  }
  return text;
}

std::string load_json(const LoadReport& report, const LoadGoals& goals) {
  const double duration = report.duration;
  nlohmann::ordered_json json = {{"duration", duration},
                                 {"completed", report.completed},
                                 {"failed", report.failed},
                                 {"total_input_tokens", report.prompt_tokens},
                                 {"total_output_tokens", report.completion_tokens},
                                 {"request_throughput", per_second(report.completed, duration)},
                                 {"output_throughput", per_second(static_cast<double>(report.completion_tokens), duration)},
                                 {"total_token_throughput", per_second(static_cast<double>(report.prompt_tokens + report.completion_tokens), duration)},
                                 {"max_output_tokens_per_s", report.most_tokens_per_second},
                                 {"max_concurrent_requests", report.most_at_once}};
  if (goals.any()) json["request_goodput"] = per_second(report.good, duration);
  for (const auto& [key, title, values] : named(report)) {
    json[fmt::format("mean_{}_ms", key)] = values.mean;
    json[fmt::format("std_{}_ms", key)] = values.deviation;
    for (size_t i = 0; i < report.percentiles.size(); ++i) {
      const std::string name = report.percentiles[i] == 50 ? "median" : percent_name(report.percentiles[i]);
      json[fmt::format("{}_{}_ms", name, key)] = values.percentiles[i];
    }
  }
  auto& failures = json["errors"] = nlohmann::ordered_json::object();
  for (const auto& [code, failure] : report.failures) failures[code] = {{"count", failure.count}, {"example", failure.example}};
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace penstock::rpc
