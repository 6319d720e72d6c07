#include "base/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "base/error.h"

namespace penstock {

namespace {

constexpr double kWidth = 800;
constexpr double kHeight = 450;
constexpr double kLeft = 72;    // the plot area's edges
constexpr double kRight = 776;
constexpr double kTop = 96;
constexpr double kBottom = 394;
// Blue, vermilion, green, purple, amber, sky: told apart also with the common kinds of color blindness (after Okabe and Ito).
constexpr std::array<std::string_view, 6> kColors = {"#0b62c4", "#d55e00", "#0a8f6c", "#9b4f96", "#c28a00", "#3fa7dd"};

bool finite(const ChartPoint& point) { return std::isfinite(point.x) && std::isfinite(point.y); }

struct Range {
  double low = 0;
  double high = 0;
  bool empty = true;

  void include(double value) {
    low = empty ? value : std::min(low, value);
    high = empty ? value : std::max(high, value);
    empty = false;
  }
};

// "12000" as "12,000", with as many decimals as telling values `distance` apart needs.
std::string label(double value, double distance) {
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(distance) - 1e-9)), 0, 9);
  // A distance of 2.5 x 10^k needs one digit more than its first.
  const double scaled = distance * std::pow(10, decimals);
  const bool one_more = std::abs(scaled - std::round(scaled)) > 1e-6;
  if (std::max(std::abs(value), distance) >= 1e9 || distance < 1e-8) return fmt::format("{:.3g}", value);
  std::string text = fmt::format("{:.{}f}", std::abs(value) < distance / 1e6 ? 0.0 : value, decimals + (one_more ? 1 : 0));
  const size_t sign = text.front() == '-' ? 1 : 0;
  size_t digit = std::min(text.find('.'), text.size());
  while (digit > sign + 3) text.insert(digit -= 3, 1, ',');
  return text;
}

// The mean of the points around each point. Towards the start the window shrinks on both sides alike, so that a steep start
// is not flattened; at the end it loses only its right half, so that the last value is still a mean.
std::vector<ChartPoint> smoothed(const std::vector<ChartPoint>& points, int window) {
  std::vector<ChartPoint> result;
  std::copy_if(points.begin(), points.end(), std::back_inserter(result), finite);
  std::vector<double> sums = {0};
  for (const ChartPoint& point : result) sums.push_back(sums.back() + point.y);
  const size_t count = result.size();
  for (size_t i = 0; i < count; ++i) {
    const size_t half = std::min(static_cast<size_t>(window) / 2, i);
    const size_t end = std::min(i + half + 1, count);
    result[i].y = (sums[end] - sums[i - half]) / static_cast<double>(end - (i - half));
  }
  return result;
}

class Chart {
 public:
  Chart(const ChartLabels& labels, const std::vector<ChartSeries>& series) : labels_(labels), series_(series) {}

  std::string draw() {
    choose_axes();
    out_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
        "font-family=\"Inter, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif\">\n"
        "<rect width=\"{0:.0f}\" height=\"{1:.0f}\" rx=\"10\" fill=\"#ffffff\"/>\n",
        kWidth, kHeight);
    draw_titles();
    draw_grid();
    for (size_t i = 0; i < series_.size(); ++i) draw_series(series_[i], kColors.at(i % kColors.size()));
    draw_legend();
    out_ += "</svg>\n";
    return std::move(out_);
  }

 private:
  void choose_axes() {
    Range x;
    Range y;
    for (const ChartSeries& one : series_) {
      for (const ChartPoint& point : one.points) {
        if (!finite(point)) continue;
        x.include(point.x);
        y.include(point.y);
      }
    }
    x_ticks_ = nice_ticks(x.low, x.empty ? 1 : x.high, 8);
    y_ticks_ = nice_ticks(y.low, y.empty ? 1 : y.high, 5);
    has_points_ = !x.empty;
    // The x axis ends with the data, the y axis with a round value.
    x_low_ = has_points_ ? x.low : 0;
    x_high_ = has_points_ && x.high > x.low ? x.high : x_low_ + 1;
    if (x_low_ > 0 && x_low_ < 0.05 * x_high_) x_low_ = 0;
  }

  [[nodiscard]] double to_x(double x) const { return kLeft + (x - x_low_) / (x_high_ - x_low_) * (kRight - kLeft); }
  [[nodiscard]] double to_y(double y) const {
    return kBottom - (y - y_ticks_.front()) / (y_ticks_.back() - y_ticks_.front()) * (kBottom - kTop);
  }

  void draw_titles() {
    out_ += fmt::format("<text x=\"24\" y=\"36\" font-size=\"19\" font-weight=\"650\" fill=\"#111827\">{}</text>\n", escape_xml(labels_.title));
    if (!labels_.subtitle.empty()) {
      out_ += fmt::format("<text x=\"24\" y=\"57\" font-size=\"12.5\" fill=\"#6b7280\">{}</text>\n", escape_xml(labels_.subtitle));
    }
  }

  void draw_grid() {
    const double y_distance = y_ticks_[1] - y_ticks_[0];
    out_ += "<g font-size=\"12\" fill=\"#6b7280\">\n";
    for (const double tick : y_ticks_) {
      const double y = to_y(tick);
      const bool axis = tick == y_ticks_.front();
      out_ += fmt::format("<line x1=\"{0:.0f}\" x2=\"{1:.0f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"{3}\"/>\n", kLeft, kRight, y,
                          axis ? "#9ca3af" : "#e9ebef");
      out_ += fmt::format("<text x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", kLeft - 9, y + 4, label(tick, y_distance));
    }
    const double x_distance = x_ticks_[1] - x_ticks_[0];
    for (const double tick : x_ticks_) {
      if (tick < x_low_ - x_distance / 1e6 || tick > x_high_ + x_distance / 1e6) continue;
      const double x = to_x(tick);
      out_ += fmt::format("<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.0f}\" y2=\"{2:.0f}\" stroke=\"#9ca3af\"/>\n", x, kBottom, kBottom + 5);
      out_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>\n", x, kBottom + 20, label(tick, x_distance));
    }
    out_ += "</g>\n<g font-size=\"12.5\" fill=\"#374151\" text-anchor=\"middle\">\n";
    out_ += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\">{}</text>\n", (kLeft + kRight) / 2, kHeight - 14, escape_xml(labels_.x_axis));
    const double middle = (kTop + kBottom) / 2;
    out_ += fmt::format("<text x=\"20\" y=\"{0:.0f}\" transform=\"rotate(-90 20 {0:.0f})\">{1}</text>\n</g>\n", middle, escape_xml(labels_.y_axis));
    if (!has_points_) {
      out_ += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" font-size=\"14\" fill=\"#9ca3af\" text-anchor=\"middle\">no data yet</text>\n",
                          (kLeft + kRight) / 2, middle);
    }
  }

  void draw_series(const ChartSeries& one, std::string_view color) {
    if (one.smoothing > 1) {
      draw_line(one.points, color, "1", "0.28");
      const auto mean = smoothed(one.points, one.smoothing);
      draw_line(mean, color, "2.2", "1");
      draw_end(mean, color);
      return;
    }
    draw_line(one.points, color, "2.2", "1");
    if (one.markers) {
      for (const ChartPoint& point : one.points) {
        if (finite(point)) draw_dot(point, color, 3);
      }
    }
    draw_end(one.points, color);
  }

  void draw_end(const std::vector<ChartPoint>& points, std::string_view color) {
    const auto last = std::find_if(points.rbegin(), points.rend(), finite);
    if (last != points.rend()) draw_dot(*last, color, 4);
  }

  void draw_dot(const ChartPoint& point, std::string_view color, double radius) {
    out_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.0f}\" fill=\"{}\" stroke=\"#ffffff\" stroke-width=\"1.2\"/>\n",
                        to_x(point.x), to_y(point.y), radius, color);
  }

  // One path; a gap in the points lifts the pen.
  void draw_line(const std::vector<ChartPoint>& points, std::string_view color, std::string_view width, std::string_view opacity) {
    std::string path;
    bool pen_down = false;
    for (const ChartPoint& point : thinned(points)) {
      if (!finite(point)) {
        pen_down = false;
        continue;
      }
      path += fmt::format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", to_x(point.x), to_y(point.y));
      pen_down = true;
    }
    if (path.empty()) return;
    out_ += fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-opacity=\"{}\" "
                        "stroke-linejoin=\"round\" stroke-linecap=\"round\"/>\n", path, color, width, opacity);
  }

  // At most two points for each column of the picture: its lowest and its highest, in their order.
  [[nodiscard]] std::vector<ChartPoint> thinned(const std::vector<ChartPoint>& points) const {
    if (points.size() <= 4 * static_cast<size_t>(kRight - kLeft)) return points;
    std::vector<ChartPoint> result;
    for (size_t first = 0; first < points.size();) {
      const auto column = [&](size_t i) { return finite(points[i]) ? static_cast<int64_t>(to_x(points[i].x)) : INT64_MIN; };
      size_t end = first + 1;
      while (end < points.size() && column(end) == column(first)) ++end;
      size_t low = first;
      size_t high = first;
      for (size_t i = first; i < end; ++i) {
        if (points[i].y < points[low].y) low = i;
        if (points[i].y > points[high].y) high = i;
      }
      result.push_back(points[std::min(low, high)]);
      if (low != high) result.push_back(points[std::max(low, high)]);
      first = end;
    }
    return result;
  }

  void draw_legend() {
    const double y = kTop - 17;
    double x = kLeft;
    out_ += "<g font-size=\"12.5\" fill=\"#374151\">\n";
    for (size_t i = 0; i < series_.size(); ++i) {
      const ChartSeries& one = series_[i];
      std::string value;
      const auto points = one.smoothing > 1 ? smoothed(one.points, one.smoothing) : one.points;
      const auto last = std::find_if(points.rbegin(), points.rend(), finite);
      if (last != points.rend()) value = label(last->y, (y_ticks_[1] - y_ticks_[0]) / 100);
      out_ += fmt::format("<line x1=\"{:.0f}\" x2=\"{:.0f}\" y1=\"{:.0f}\" y2=\"{:.0f}\" stroke=\"{}\" stroke-width=\"3\" stroke-linecap=\"round\"/>\n",
                          x + 2, x + 18, y - 4, y - 4, kColors.at(i % kColors.size()));
      out_ += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\">{} <tspan font-weight=\"650\" fill=\"#111827\">{}</tspan></text>\n", x + 26, y,
                          escape_xml(one.name), value);
      x += 26 + 7.2 * static_cast<double>(one.name.size() + value.size() + 1) + 22;  // about the width of the text
    }
    out_ += "</g>\n";
  }

  const ChartLabels& labels_;
  const std::vector<ChartSeries>& series_;
  std::string out_;
  bool has_points_ = false;
  std::vector<double> x_ticks_;
  std::vector<double> y_ticks_;
  double x_low_ = 0;
  double x_high_ = 1;
};

}  // namespace

std::string escape_xml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;  // control characters are not allowed in XML
    }
  }
  return out;
}

std::string line_chart_svg(const ChartLabels& labels, const std::vector<ChartSeries>& series) { return Chart(labels, series).draw(); }

std::vector<double> nice_ticks(double low, double high, int wanted) {
  PENSTOCK_CHECK(std::isfinite(low) && std::isfinite(high) && low <= high && wanted >= 1, "{} to {}, {} ticks", low, high, wanted);
  if (high - low <= std::max(std::abs(low), std::abs(high)) * 1e-12) {  // one value: leave room on both sides of it
    const double room = low == 0 ? 1 : std::abs(low) / 10;
    low -= room;
    high += room;
  }
  const double rough = (high - low) / wanted;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double distance = 10 * power;
  for (const double factor : {5.0, 2.5, 2.0, 1.0}) {
    if (factor * power >= rough * (1 - 1e-9)) distance = factor * power;
  }
  std::vector<double> ticks;
  const double first = std::floor(low / distance + 1e-9);
  const double last = std::ceil(high / distance - 1e-9);
  for (double step = first; step <= last; ++step) ticks.push_back(step * distance);
  return ticks;
}

}  // namespace penstock
