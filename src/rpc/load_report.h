#pragma once
// What a load test has measured, in vLLM's definitions (`vllm bench serve`), so that its figures can be compared.
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace penstock::rpc {

// What became of one request.
struct LoadResult {
  Clock::time_point sent;
  std::vector<Clock::time_point> messages;  // that brought tokens: when each came
  std::vector<int> tokens;                  // of each of them
  int prompt_tokens = 0;
  int completion_tokens = 0;
  std::optional<Error> failure;
};

struct LoadStatistics {
  double mean = 0, deviation = 0;     // standard deviation of all, not of a sample
  std::vector<double> percentiles;    // as asked for
};

// Request seconds that a request must keep to be counted as good; 0 = whatever it takes.
struct LoadGoals {
  double ttft = 0, tpot = 0, e2el = 0;
  [[nodiscard]] bool any() const { return ttft > 0 || tpot > 0 || e2el > 0; }
};

struct LoadReport {
  int completed = 0;
  int good = 0;              // of them, those that kept the goals
  int failed = 0;
  struct Failure {
    int count = 0;
    std::string example;
  };
  std::map<std::string, Failure> failures;  // by the name of their code
  double duration = 0;       // seconds, from the first request to the last message
  int64_t prompt_tokens = 0;      // of completed requests
  int64_t completion_tokens = 0;
  int most_at_once = 0;      // requests
  int64_t most_tokens_per_second = 0;  // in any whole second
  std::vector<double> percentiles;     // 0 ... 100
  // Milliseconds, of completed requests:
  LoadStatistics ttft;       // from sending to the first token
  LoadStatistics tpot;       // (e2el - ttft) / (tokens - 1) of each request with 2 or more
  LoadStatistics itl;        // each gap between two messages of a request
  LoadStatistics e2el;       // from sending to the last token
};

[[nodiscard]] LoadReport make_load_report(const std::vector<LoadResult>& results, const std::vector<double>& percentiles, const LoadGoals& goals);

// For people, and with vLLM's names for programs (one JSON object).
[[nodiscard]] std::string load_table(const LoadReport& report, const LoadGoals& goals);
[[nodiscard]] std::string load_json(const LoadReport& report, const LoadGoals& goals);

// Linear between neighbours, as NumPy's. `percent`: 0 ... 100. 0 when there are no values. Sorts them.
[[nodiscard]] double percentile(std::vector<double>& values, double percent);

}  // namespace penstock::rpc
