#include "frontend/scale_planner.h"

#include <algorithm>

namespace penstock::frontend {
namespace {

// Whether `condition` has held since `since` for as long as `time`. Keeps `since`.
bool has_held(bool condition, std::optional<Clock::time_point>& since, Clock::time_point now, milliseconds time) {
  if (!condition) {
    since.reset();
    return false;
  }
  if (!since) since = now;
  return now - *since >= time;
}

}  // namespace

int ScalePlanner::plan(const LoadSample& sample, const ScaleLimits& limits, Clock::time_point now) {
  const bool is_short = sample.waiting > 0 && sample.pending == 0 && sample.groups > 0 && sample.groups < limits.max;
  const size_t places_of_others = static_cast<size_t>(std::max(0, sample.groups - 1) * sample.places_per_group);
  const bool is_idle = sample.waiting == 0 && sample.running <= places_of_others && sample.groups > std::max(1, limits.min);
  const bool more = has_held(is_short, short_since_, now, limits.up_after);
  const bool less = has_held(is_idle, idle_since_, now, limits.down_after);
  if (!more && !less) return sample.groups;
  short_since_.reset();
  idle_since_.reset();
  return sample.groups + (more ? 1 : -1);
}

}  // namespace penstock::frontend
