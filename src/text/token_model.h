#pragma once
// How a piece of text becomes ids, once text has been normalized and cut.
#include <cstdint>
#include <string_view>
#include <vector>

namespace penstock::text {

// Threads: const methods may be called from any thread at once.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  // Appends the ids of `piece`.
  virtual void encode(std::string_view piece, std::vector<int32_t>& ids) const = 0;
};

}  // namespace penstock::text
