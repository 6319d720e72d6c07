#include "base/svg_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace penstock {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

size_t count(const std::string& text, const std::string& what) {
  size_t found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

TEST(NiceTicks, AreRoundAndEncloseTheRange) {
  EXPECT_THAT(nice_ticks(0, 10, 5), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(nice_ticks(1.8, 5.6, 5), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(nice_ticks(0, 1000, 4), ElementsAre(0, 250, 500, 750, 1000));
  EXPECT_THAT(nice_ticks(-3, 3, 3), ElementsAre(-4, -2, 0, 2, 4));
}

TEST(NiceTicks, EncloseEveryRangeWithAReasonableNumber) {
  for (const double low : {-1e6, -3.7, 0.0, 1e-7, 0.3, 12345.6}) {
    for (const double width : {0.0, 1e-9, 0.01, 1.0, 7.3, 999.0, 1e8}) {
      const auto ticks = nice_ticks(low, low + width, 5);
      EXPECT_LE(ticks.front(), low + std::abs(low) * 1e-9 + width * 1e-6);
      EXPECT_GE(ticks.back(), low + width - std::abs(low) * 1e-9 - width * 1e-6);
      EXPECT_GE(ticks.size(), 2u);
      EXPECT_LE(ticks.size(), 8u) << low << " " << width;
    }
  }
}

TEST(LineChart, ShowsTitlesSeriesTicksAndLastValues) {
  const std::string svg = line_chart_svg({"Loss", "2 x 2 processes", "step", "nats per byte"},
                                         {{"training", {{0, 5.5}, {10000, 1.75}}, 0, false}, {"validation", {{5000, 2}, {10000, 1.9}}, 0, true}});
  EXPECT_THAT(svg, AllOf(HasSubstr(">Loss<"), HasSubstr(">2 x 2 processes<"), HasSubstr(">step<"), HasSubstr(">nats per byte<")));
  EXPECT_THAT(svg, AllOf(HasSubstr(">training <"), HasSubstr(">1.75<"), HasSubstr(">validation <"), HasSubstr(">1.90<")));
  EXPECT_THAT(svg, AllOf(HasSubstr(">10,000</text>"), HasSubstr(">6</text>"), HasSubstr(">1</text>")));
  EXPECT_EQ(count(svg, "<path"), 2u);
  EXPECT_EQ(count(svg, "<circle"), 2u + 2u) << "the ends, and a marker for each validation point";
}

TEST(LineChart, DrawsThePointsWhereTheyBelong) {
  const std::string svg = line_chart_svg({"", "", "", ""}, {{"a", {{0, 0}, {50, 10}, {100, 0}}, 0, false}});
  EXPECT_THAT(svg, HasSubstr("M72.0 394.0L424.0 96.0L776.0 394.0"));
}

TEST(LineChart, LeavesAGapWhereAPointIsNotFinite) {
  const std::string svg = line_chart_svg({"", "", "", ""}, {{"a", {{0, 0}, {1, 1}, {2, kNan}, {3, 1}, {4, 0}}, 0, false}});
  EXPECT_EQ(count(svg, "M"), 2u);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(LineChart, SmoothsByTheMeanOfThePointsAroundEach) {
  const std::string svg = line_chart_svg({"", "", "", ""}, {{"a", {{0, 0}, {1, 10}, {2, 0}, {3, 10}}, 2, false}});
  EXPECT_EQ(count(svg, "<path"), 2u) << "the points and their mean";
  EXPECT_THAT(svg, HasSubstr("M72.0 394.0L306.7 294.7L541.3 195.3L776.0 245.0")) << "0, 10/3, 20/3, 5 on an axis from 0 to 10";
  EXPECT_THAT(svg, HasSubstr(">5.00<")) << "the legend shows the mean";
}

TEST(LineChart, EscapesTextThatWouldBeMarkup) {
  const std::string svg = line_chart_svg({"<script> & \"quotes\"\n", "", "", ""}, {{"a<b", {}, 0, false}});
  EXPECT_THAT(svg, AllOf(HasSubstr("&lt;script&gt; &amp; &quot;quotes&quot; <"), HasSubstr("a&lt;b"), Not(HasSubstr("<script>"))));
}

TEST(LineChart, WithoutPointsSaysSo) {
  EXPECT_THAT(line_chart_svg({"Loss", "", "", ""}, {}), HasSubstr("no data yet"));
  EXPECT_THAT(line_chart_svg({"Loss", "", "", ""}, {{"a", {{kNan, 1}}, 0, true}}), HasSubstr("no data yet"));
  EXPECT_THAT(line_chart_svg({"Loss", "", "", ""}, {{"a", {{7, 3}}, 0, false}}), Not(HasSubstr("no data yet")));
}

TEST(LineChart, ThinsLongSeriesAndKeepsTheirExtremes) {
  std::vector<ChartPoint> points;
  for (int i = 0; i < 1000000; ++i) points.push_back({static_cast<double>(i), 1.0 + 0.1 * (i % 7)});
  points[500000].y = 10;  // one spike among a million
  const std::string svg = line_chart_svg({"", "", "", ""}, {{"a", points, 0, false}});
  EXPECT_LT(svg.size(), 60000u);
  EXPECT_THAT(svg, HasSubstr(" 96.0L")) << "the spike reaches the top of the plot";
}

}  // namespace
}  // namespace penstock
