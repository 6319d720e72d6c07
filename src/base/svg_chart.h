#pragma once
// A line chart as an SVG picture: for loss curves and benchmark results that people look at and show.
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

struct ChartPoint {
  double x = 0;
  double y = 0;
};

struct ChartSeries {
  std::string name;                // shown in the legend, with the last value
  std::vector<ChartPoint> points;  // x ascending; points that are not finite leave a gap
  int smoothing = 0;               // > 1: draw the mean of that many points around each, and the points themselves faintly behind it
  bool markers = false;            // a dot at each point, for series of few points
};

struct ChartLabels {
  std::string title;
  std::string subtitle;  // may be empty
  std::string x_axis;
  std::string y_axis;
};

// An SVG file of 800 x 450 units: title, legend, grid, axes with round tick values. The same input gives the same bytes.
// Long series are thinned to what the picture's width can show, keeping each column's lowest and highest point.
[[nodiscard]] std::string line_chart_svg(const ChartLabels& labels, const std::vector<ChartSeries>& series);

// Text as XML wants it between tags and in attributes.
[[nodiscard]] std::string escape_xml(std::string_view text);

// Round values (1, 2, 2.5 or 5 times a power of ten apart) from at or below `low` to at or above `high`: 2 to about `wanted` + 2 of them.
// REQUIRES: low <= high, both finite.
[[nodiscard]] std::vector<double> nice_ticks(double low, double high, int wanted);

}  // namespace penstock
