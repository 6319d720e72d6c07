#pragma once
// When a model gets one worker group more or less, between minWorkers and maxWorkers. Pure: no threads, no clock of its own.
#include <cstddef>
#include <optional>

#include "base/clock.h"

namespace penstock::frontend {

struct ScaleLimits {
  int min = 1;                      // groups
  int max = 1;
  milliseconds up_after{2000};      // scaleUpAfterMSec
  milliseconds down_after{60000};   // scaleDownAfterMSec
};

// A model at one moment.
struct LoadSample {
  int groups = 0;                   // that serve or are to: without those that leave
  int pending = 0;                  // of these: start, load, or wait to be started again
  int places_per_group = 0;         // requests that a group runs at once; 0 = not known yet
  size_t waiting = 0;               // requests
  size_t running = 0;
};

// One more when requests have waited for up_after without a break, though no group is on its way. One less when for down_after nothing has
// waited and the other groups had places enough for all that ran. The wait begins anew after each change, so a change is seen to work, or not
// to, before the next one; down_after is much longer than a load takes, so that groups do not come and go.
//
// A model without groups stays without: that is for the management API.
class ScalePlanner {
 public:
  // How many groups there should be: sample.groups, one more or one less. Called every now and then, with a clock that does not go back.
  [[nodiscard]] int plan(const LoadSample& sample, const ScaleLimits& limits, Clock::time_point now);

 private:
  std::optional<Clock::time_point> short_since_;  // requests wait
  std::optional<Clock::time_point> idle_since_;   // a group would not be missed
};

}  // namespace penstock::frontend
