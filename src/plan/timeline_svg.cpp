#include "plan/timeline_svg.h"

#include <algorithm>
#include <array>

#include "base/svg_chart.h"

namespace penstock::plan {

namespace {

constexpr double kLeft = 84, kWidth = 1120, kTop = 92, kRowHeight = 34, kRowGap = 8, kBottom = 56;
constexpr size_t kMaxBars = 20'000;
constexpr double kLabelWidth = 7.5;  // of a digit

struct Style {
  const char* name;
  std::array<const char*, 2> fill;  // first chunk of a rank, and later ones
};

// Told apart also with the common kinds of colour blindness (after Okabe and Ito).
const Style* style_of(ActionKind kind) {
  static constexpr Style kForward{"forward", {"#0b62c4", "#6aa5e6"}}, kBackward{"backward", {"#d55e00", "#f0a067"}},
      kInputGrad{"input gradient", {"#c28a00", "#e6c367"}}, kWeightGrad{"weight gradient", {"#0a8f6c", "#6cc9b0"}};
  switch (kind) {
    case ActionKind::kForward: return &kForward;
    case ActionKind::kBackward: return &kBackward;
    case ActionKind::kInputGrad: return &kInputGrad;
    case ActionKind::kWeightGrad: return &kWeightGrad;
    default: return nullptr;
  }
}

struct Span {
  double start = 0;
  double end = 0;
};

Span span_of(const std::vector<TimelineRow>& rows) {
  std::optional<Span> span;
  for (const TimelineRow& row : rows) {
    for (const TimelineBar& bar : row.bars) {
      if (!span) span = Span{bar.start, bar.end};
      span->start = std::min(span->start, bar.start);
      span->end = std::max(span->end, bar.end);
    }
  }
  return span.value_or(Span{0, 1});
}

class Drawing {
 public:
  explicit Drawing(const TimelinePicture& picture)
      : picture_(picture), span_(span_of(picture.rows)), height_(kTop + static_cast<double>(picture.rows.size()) * (kRowHeight + kRowGap) + kBottom) {}

  std::string run() {
    head();
    for (size_t row = 0; row < picture_.rows.size(); ++row) draw_row(picture_.rows[row], kTop + static_cast<double>(row) * (kRowHeight + kRowGap));
    axis();
    legend();
    return std::move(out_) + "</svg>\n";
  }

 private:
  [[nodiscard]] double x(double time) const { return kLeft + (time - span_.start) / std::max(span_.end - span_.start, 1e-12) * (kWidth - kLeft - 24); }

  void text(double at_x, double at_y, const std::string& text, const char* attributes) {
    out_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", at_x, at_y, attributes, escape_xml(text));
  }

  void head() {
    out_ += fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
                        "font-family=\"system-ui, sans-serif\">\n", kWidth, height_);
    out_ += "<defs><pattern id=\"idle\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
            "<rect width=\"7\" height=\"7\" fill=\"#f4f4f4\"/><line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"7\" stroke=\"#cfcfcf\" stroke-width=\"2\"/></pattern></defs>\n";
    out_ += fmt::format("<rect width=\"{:.0f}\" height=\"{:.0f}\" fill=\"#ffffff\"/>\n", kWidth, height_);
    text(kLeft, 32, picture_.title, "font-size=\"20\" font-weight=\"600\" fill=\"#1a1a1a\"");
    text(kLeft, 54, picture_.subtitle, "font-size=\"13\" fill=\"#555555\"");
  }

  void draw_row(const TimelineRow& row, double y) {
    text(kLeft - 10, y + kRowHeight / 2 + 5, row.name, "font-size=\"14\" text-anchor=\"end\" fill=\"#1a1a1a\"");
    out_ += fmt::format("<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.0f}\" fill=\"url(#idle)\"/>\n", kLeft, y, x(span_.end) - kLeft, kRowHeight);
    for (const TimelineBar& bar : row.bars) draw_bar(bar, y);
  }

  void draw_bar(const TimelineBar& bar, double y) {
    const Style* style = style_of(bar.kind);
    if (style == nullptr) return;
    if (std::ranges::find(used_, style) == used_.end()) used_.push_back(style);
    const double left = x(bar.start), width = x(bar.end) - left;
    out_ += fmt::format("<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.0f}\" fill=\"{}\" stroke=\"#ffffff\" stroke-width=\"{}\">"
                        "<title>{} of micro-batch {} on stage {}: {:g} to {:g} {}</title></rect>\n",
                        left, y, width, kRowHeight, style->fill[bar.stage >= picture_.num_ranks ? 1 : 0], width > 4 ? 1 : 0, style->name, bar.microbatch,
                        bar.stage, bar.start - span_.start, bar.end - span_.start, escape_xml(picture_.unit));
    const std::string label = std::to_string(bar.microbatch);
    if (width < kLabelWidth * static_cast<double>(label.size()) + 4) return;
    text(left + width / 2, y + kRowHeight / 2 + 4.5, label, "font-size=\"12\" text-anchor=\"middle\" fill=\"#ffffff\"");
  }

  void axis() {
    const double y = height_ - kBottom + 14;
    for (const double tick : nice_ticks(0, span_.end - span_.start, 8)) {
      if (tick > (span_.end - span_.start) * 1.0001) continue;
      const double at = x(span_.start + tick);
      out_ += fmt::format("<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" stroke=\"#999999\"/>\n", at, y - 12, y - 6);
      text(at, y + 8, fmt::format("{:g}", tick), "font-size=\"12\" text-anchor=\"middle\" fill=\"#555555\"");
    }
    text(x(span_.end), y + 26, picture_.unit, "font-size=\"12\" text-anchor=\"end\" fill=\"#555555\"");
  }

  void legend() {
    double at = kLeft;
    const auto entry = [&](const char* fill, const char* name) {
      out_ += fmt::format("<rect x=\"{:.1f}\" y=\"66\" width=\"14\" height=\"14\" fill=\"{}\"/>\n", at, fill);
      text(at + 20, 78, name, "font-size=\"13\" fill=\"#1a1a1a\"");
      at += 44 + 7.2 * static_cast<double>(std::string_view(name).size());
    };
    for (const Style* style : used_) entry(style->fill[0], style->name);
    entry("url(#idle)", "idle");
  }

  const TimelinePicture& picture_;
  const Span span_;
  const double height_;
  std::vector<const Style*> used_;
  std::string out_;
};

}  // namespace

Result<std::string> timeline_svg(const TimelinePicture& picture) {
  size_t bars = 0;
  for (const TimelineRow& row : picture.rows) bars += row.bars.size();
  if (bars > kMaxBars) {
    return error(Code::kInvalidArgument, "svg: {} actions are more than a picture shows; expected at most {}: take fewer micro-batches or ranks", bars, kMaxBars);
  }
  return Drawing(picture).run();
}

TimelinePicture picture_of(const Schedule& schedule, const Simulation& simulation) {
  TimelinePicture picture;
  picture.title = fmt::format("{}, {} ranks, {} micro-batches: bubble {:.1f} %", schedule.name, schedule.num_ranks, schedule.num_microbatches,
                              100 * simulation.bubble_share);
  picture.unit = "units of time";
  picture.num_ranks = schedule.num_ranks;
  int live = 0;
  for (size_t rank = 0; rank < simulation.ranks.size(); ++rank) {
    auto& row = picture.rows.emplace_back(TimelineRow{fmt::format("rank {}", rank), {}});
    for (const TimedAction& timed : simulation.ranks[rank].actions) {
      if (is_compute(timed.action.kind)) row.bars.push_back({timed.action.kind, timed.action.stage, timed.action.microbatch, timed.start, timed.end});
    }
    live = std::max(live, simulation.ranks[rank].peak_live_activations);
  }
  picture.subtitle = fmt::format("{} stages, makespan {:g}, at most {} live activations on a rank; numbers are micro-batches", schedule.num_stages,
                                 simulation.makespan, live);
  return picture;
}

double bubble_share(const std::vector<TimelineRow>& rows) {
  const Span span = span_of(rows);
  double busy = 0;
  for (const TimelineRow& row : rows) {
    for (const TimelineBar& bar : row.bars) busy += bar.end - bar.start;
  }
  const double all = static_cast<double>(rows.size()) * (span.end - span.start);
  return all > 0 ? std::max(0.0, 1 - busy / all) : 0;
}

}  // namespace penstock::plan
