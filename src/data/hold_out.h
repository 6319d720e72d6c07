#pragma once
// Which documents are held out for validation.
#include <cmath>
#include <cstdint>

namespace penstock::data {

// Of the first n documents, round(n · fraction) are held out, for every n.
class HoldOut {
 public:
  explicit HoldOut(double fraction) : fraction_(fraction) {}
  // Whether the next one is.
  bool next() {
    ++seen_;
    if (std::floor(static_cast<double>(seen_) * fraction_ + 0.5) <= static_cast<double>(held_)) return false;
    ++held_;
    return true;
  }

 private:
  double fraction_;
  int64_t seen_ = 0, held_ = 0;
};

}  // namespace penstock::data
