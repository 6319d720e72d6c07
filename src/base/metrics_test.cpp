#include "base/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace penstock {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Metrics, ACounterIsPrintedAsJavasClientPrintsIt) {
  MetricRegistry registry;
  auto& requests = registry.counter({"Requests2XX", "how \\ many\nrequests", {"Level", "Hostname"}});
  requests.with({"Host", "a\"b\\c\n"})->add(8);
  EXPECT_EQ(registry.render(),
            "# HELP Requests2XX how \\\\ many\\nrequests\n"
            "# TYPE Requests2XX counter\n"
            "Requests2XX{Level=\"Host\",Hostname=\"a\\\"b\\\\c\\n\",} 8.0\n");
}

TEST(Metrics, NumbersAreExact) {
  MetricRegistry registry;
  auto& gauge = registry.gauge({"g", "", {}});
  for (const auto& [value, text] : {std::pair(0.0, "g 0.0"), std::pair(-2.0, "g -2.0"), std::pair(0.1, "g 0.1"), std::pair(12345678.0, "g 12345678.0"),
                                    std::pair(1e18, "g 1e+18"), std::pair(1.0 / 0.0, "g +Inf")}) {
    gauge.with({})->set(value);
    EXPECT_THAT(registry.render(), HasSubstr(std::string(text) + "\n"));
  }
}

TEST(Metrics, AHistogramCountsEachValueInEveryBucketThatHoldsIt) {
  MetricRegistry registry;
  auto histogram = registry.histogram({"h", "help", {"m"}}, {0.5, 1}).with({"x"});
  for (const double value : {0.25, 0.5, 0.75, 8.0}) histogram->observe(value);
  EXPECT_EQ(registry.render(),
            "# HELP h help\n# TYPE h histogram\n"
            "h_bucket{m=\"x\",le=\"0.5\",} 2.0\n"
            "h_bucket{m=\"x\",le=\"1.0\",} 3.0\n"
            "h_bucket{m=\"x\",le=\"+Inf\",} 4.0\n"
            "h_count{m=\"x\",} 4.0\n"
            "h_sum{m=\"x\",} 9.5\n");
}

TEST(Metrics, OnlyWhatIsWantedIsRendered) {
  MetricRegistry registry;
  registry.counter({"a", "A", {}}).with({})->add();
  registry.histogram({"h", "H", {}}, {1}).with({})->observe(2);
  registry.collect([](MetricText& text) {
    text.family("c", "gauge", "C");
    text.sample({}, {}, 3);
  });
  EXPECT_EQ(registry.render({"a"}), "# HELP a A\n# TYPE a counter\na 1.0\n");
  EXPECT_EQ(registry.render({"h_sum", "c"}), "# HELP h H\n# TYPE h histogram\nh_sum 2.0\n# HELP c C\n# TYPE c gauge\nc 3.0\n");
  EXPECT_EQ(registry.render({"unknown"}), "");
}

TEST(Metrics, TheNumberOfLabelSetsIsBounded) {
  MetricRegistry registry;
  auto& family = registry.counter({"c", "", {"m", "v"}});
  std::vector<std::shared_ptr<Counter>> held;
  for (size_t i = 0; i < MetricFamily<Counter>::kMaxLabelSets; ++i) held.push_back(family.with({std::to_string(i), "1"}));
  family.with({"one more", "1"})->add();
  family.with({"another", "1"})->add();
  EXPECT_THAT(registry.render(), HasSubstr("c{m=\"other\",v=\"other\",} 2.0\n"));
  EXPECT_EQ(family.with({"7", "1"}), held[7]);

  held.clear();  // nobody counts them any more: they make room
  const auto fresh = family.with({"fresh", "1"});
  fresh->add();
  EXPECT_THAT(registry.render(), HasSubstr("c{m=\"fresh\",v=\"1\",} 1.0\n"));
  EXPECT_THAT(registry.render(), Not(HasSubstr("m=\"7\"")));
}

TEST(Metrics, NothingIsLostBetweenThreads) {
  MetricRegistry registry;
  auto counter = registry.counter({"c", "", {}}).with({});
  auto histogram = registry.histogram({"h", "", {}}, {1, 2, 3}).with({});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; ++i) {
        counter->add();
        histogram->observe(i % 5);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(counter->value(), 40000u);
  EXPECT_EQ(histogram->sum(), 80000.0);
  EXPECT_THAT(registry.render(), HasSubstr("h_count 40000.0\n"));
}

}  // namespace
}  // namespace penstock
