#pragma once
// Counters, gauges and histograms with labels, and their text for Prometheus (exposition format 0.0.4).
//
// A family is one name with its label names; with() answers the metric of one set of label values. Whoever counts often keeps what with()
// has answered: a counter is then one atomic addition, a histogram a search among its bounds and two of them. Nothing is allocated.
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"

namespace penstock {

// Threads: every method from any thread, without locks.
class Counter {
 public:
  void add(uint64_t count = 1) { value_.fetch_add(count, std::memory_order_relaxed); }
  [[nodiscard]] uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Gauge {
 public:
  void set(double value) { value_.store(value, std::memory_order_relaxed); }
  [[nodiscard]] double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Histogram {
 public:
  // `bounds`: upper ends of the buckets, ascending, each inclusive; one bucket for what is larger comes by itself.
  explicit Histogram(std::vector<double> bounds) : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}
  void observe(double value);

  [[nodiscard]] const std::vector<double>& bounds() const { return bounds_; }
  [[nodiscard]] uint64_t count_in(size_t bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }
  [[nodiscard]] double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  const std::vector<double> bounds_;
  std::vector<std::atomic<uint64_t>> counts_;
  std::atomic<double> sum_{0};
};

// "8.0", "0.25", "+Inf": whole numbers keep a ".0", as Java prints them.
[[nodiscard]] std::string metric_number(double value);

using Labels = std::vector<std::string>;

// Writes the text: `Name{label="value",} 8.0`, with a comma after the last label, as Java's client writes it and tools of its users expect.
class MetricText {
 public:
  // `wanted`: names of families or of single samples ("x_bucket"); empty = all.
  explicit MetricText(const std::vector<std::string>& wanted) : wanted_(wanted.begin(), wanted.end()) {}
  // The samples that follow belong to it. `type`: "counter", "gauge" or "histogram".
  void family(std::string_view name, std::string_view type, std::string_view help);
  void sample(const Labels& names, const Labels& values, double value, std::string_view suffix = "");
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  [[nodiscard]] bool wants(const std::string& name) const { return wanted_.empty() || wanted_.contains(name); }
  void write_header();

  const std::set<std::string> wanted_;
  std::string text_;
  std::string name_, type_, help_;
  bool has_header_ = false;
};

struct MetricHead {
  std::string name;
  std::string help;
  Labels labels;  // their names
};

namespace detail {
class AnyFamily {
 public:
  virtual ~AnyFamily() = default;
  virtual void write(MetricText& text) const = 0;
};
void write_head(MetricText& text, const MetricHead& head, const Counter*);
void write_head(MetricText& text, const MetricHead& head, const Gauge*);
void write_head(MetricText& text, const MetricHead& head, const Histogram*);
void write_value(MetricText& text, const Labels& names, const Labels& values, const Counter& counter);
void write_value(MetricText& text, const Labels& names, const Labels& values, const Gauge& gauge);
void write_value(MetricText& text, const Labels& names, const Labels& values, const Histogram& histogram);
}  // namespace detail

// Threads: every method from any thread; with() takes a lock for the time of a look-up.
// Bounded: at most kMaxLabelSets metrics. One more replaces those that nobody holds; when all are held, it counts in one whose label values
//          are all "other".
template <typename Metric>
class MetricFamily final : public detail::AnyFamily {
 public:
  static constexpr size_t kMaxLabelSets = 1000;
  using Make = std::function<std::shared_ptr<Metric>()>;
  MetricFamily(MetricHead head, Make make) : head_(std::move(head)), make_(std::move(make)) {}

  // `values`: one for each label name.
  [[nodiscard]] std::shared_ptr<Metric> with(Labels values) EXCLUDES(mutex_);
  void write(MetricText& text) const override EXCLUDES(mutex_);

 private:
  const MetricHead head_;
  const Make make_;
  mutable Mutex mutex_;
  std::map<Labels, std::shared_ptr<Metric>> metrics_ GUARDED_BY(mutex_);
  std::shared_ptr<Metric> other_ GUARDED_BY(mutex_);  // held, so that it makes no room
};

// Threads:  every method from any thread. Collectors run in the thread of render().
// Lifetime: families live as long as the registry; metrics as long as anybody holds them.
class MetricRegistry {
 public:
  MetricFamily<Counter>& counter(MetricHead head);
  MetricFamily<Gauge>& gauge(MetricHead head);
  MetricFamily<Histogram>& histogram(MetricHead head, std::vector<double> bounds);
  // Writes families whose values are looked up when somebody asks; must not block.
  void collect(std::function<void(MetricText&)> collector) EXCLUDES(mutex_);

  // Families in the order in which they were made, then the collectors' ones. `wanted`: as in MetricText.
  [[nodiscard]] std::string render(const std::vector<std::string>& wanted = {}) const EXCLUDES(mutex_);

 private:
  template <typename Metric>
  MetricFamily<Metric>& add(MetricHead head, typename MetricFamily<Metric>::Make make) EXCLUDES(mutex_);

  mutable Mutex mutex_;
  std::vector<std::shared_ptr<detail::AnyFamily>> families_ GUARDED_BY(mutex_);
  std::vector<std::function<void(MetricText&)>> collectors_ GUARDED_BY(mutex_);
};

// --- MetricFamily ---
template <typename Metric>
std::shared_ptr<Metric> MetricFamily<Metric>::with(Labels values) {
  MutexLock lock(mutex_);
  const auto found = metrics_.find(values);
  if (found != metrics_.end()) return found->second;
  if (metrics_.size() >= kMaxLabelSets) std::erase_if(metrics_, [](const auto& entry) { return entry.second.use_count() == 1; });
  const bool full = metrics_.size() >= kMaxLabelSets;
  if (full) values.assign(head_.labels.size(), "other");
  auto& metric = metrics_[std::move(values)];
  if (!metric) metric = make_();
  if (full) other_ = metric;
  return metric;
}

template <typename Metric>
void MetricFamily<Metric>::write(MetricText& text) const {
  detail::write_head(text, head_, static_cast<const Metric*>(nullptr));
  MutexLock lock(mutex_);
  for (const auto& [values, metric] : metrics_) detail::write_value(text, head_.labels, values, *metric);
}

}  // namespace penstock
