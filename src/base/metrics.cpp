#include "base/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

namespace penstock {
namespace {

void append_number(std::string& text, double value) {
  if (std::isnan(value)) text += "NaN";
  else if (std::isinf(value)) text += value > 0 ? "+Inf" : "-Inf";
  else if (value == std::trunc(value) && std::abs(value) < 1e15) fmt::format_to(std::back_inserter(text), "{:.1f}", value);
  else fmt::format_to(std::back_inserter(text), "{}", value);
}

void append_escaped(std::string& text, std::string_view value, bool in_quotes) {
  for (const char c : value) {
    if (c == '\\') text += "\\\\";
    else if (c == '\n') text += "\\n";
    else if (c == '"' && in_quotes) text += "\\\"";
    else text += c;
  }
}

}  // namespace

std::string metric_number(double value) {
  std::string text;
  append_number(text, value);
  return text;
}

void Histogram::observe(double value) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

void MetricText::family(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  type_ = type;
  help_ = help;
  has_header_ = false;
  if (wants(name_)) write_header();
}

void MetricText::write_header() {
  text_ += "# HELP " + name_ + " ";
  append_escaped(text_, help_, /*in_quotes=*/false);
  text_ += "\n# TYPE " + name_ + " " + type_ + "\n";
  has_header_ = true;
}

void MetricText::sample(const Labels& names, const Labels& values, double value, std::string_view suffix) {
  const std::string full = name_ + std::string(suffix);
  if (!wants(name_) && !wants(full)) return;
  if (!has_header_) write_header();
  text_ += full;
  if (!names.empty()) {
    text_ += '{';
    for (size_t i = 0; i < names.size(); ++i) {
      text_ += names[i] + "=\"";
      append_escaped(text_, values.at(i), /*in_quotes=*/true);
      text_ += "\",";
    }
    text_ += '}';
  }
  text_ += ' ';
  append_number(text_, value);
  text_ += '\n';
}

namespace detail {

void write_head(MetricText& text, const MetricHead& head, const Counter*) { text.family(head.name, "counter", head.help); }
void write_head(MetricText& text, const MetricHead& head, const Gauge*) { text.family(head.name, "gauge", head.help); }
void write_head(MetricText& text, const MetricHead& head, const Histogram*) { text.family(head.name, "histogram", head.help); }

void write_value(MetricText& text, const Labels& names, const Labels& values, const Counter& counter) {
  text.sample(names, values, static_cast<double>(counter.value()));
}

void write_value(MetricText& text, const Labels& names, const Labels& values, const Gauge& gauge) {
  text.sample(names, values, gauge.value());
}

void write_value(MetricText& text, const Labels& names, const Labels& values, const Histogram& histogram) {
  Labels with_le = names, le = values;
  with_le.emplace_back("le");
  le.emplace_back();
  uint64_t count = 0;  // of this and all smaller buckets
  const auto& bounds = histogram.bounds();
  for (size_t i = 0; i <= bounds.size(); ++i) {
    count += histogram.count_in(i);
    le.back() = i < bounds.size() ? metric_number(bounds[i]) : "+Inf";
    text.sample(with_le, le, static_cast<double>(count), "_bucket");
  }
  text.sample(names, values, static_cast<double>(count), "_count");
  text.sample(names, values, histogram.sum(), "_sum");
}

}  // namespace detail

template <typename Metric>
MetricFamily<Metric>& MetricRegistry::add(MetricHead head, typename MetricFamily<Metric>::Make make) {
  auto family = std::make_shared<MetricFamily<Metric>>(std::move(head), std::move(make));
  MutexLock lock(mutex_);
  families_.push_back(family);
  return *family;
}

MetricFamily<Counter>& MetricRegistry::counter(MetricHead head) { return add<Counter>(std::move(head), &std::make_shared<Counter>); }
MetricFamily<Gauge>& MetricRegistry::gauge(MetricHead head) { return add<Gauge>(std::move(head), &std::make_shared<Gauge>); }
MetricFamily<Histogram>& MetricRegistry::histogram(MetricHead head, std::vector<double> bounds) {
  return add<Histogram>(std::move(head), [bounds = std::move(bounds)] { return std::make_shared<Histogram>(bounds); });
}

void MetricRegistry::collect(std::function<void(MetricText&)> collector) {
  MutexLock lock(mutex_);
  collectors_.push_back(std::move(collector));
}

std::string MetricRegistry::render(const std::vector<std::string>& wanted) const {
  std::vector<std::shared_ptr<detail::AnyFamily>> families;
  std::vector<std::function<void(MetricText&)>> collectors;
  {
    MutexLock lock(mutex_);
    families = families_;
    collectors = collectors_;
  }
  MetricText text(wanted);
  for (const auto& family : families) family->write(text);
  for (const auto& collector : collectors) collector(text);
  return text.take();
}

}  // namespace penstock
