#include "comm/same_settings.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace penstock::comm {
namespace {

using nlohmann::json;

constexpr int64_t kMaxBytes = 1 << 20;
constexpr size_t kMaxNamed = 5;  // differences

// `text` of rank `root` on every rank.
std::string broadcast_text(Communicator& world, const std::string& text, int root, Deadline deadline) {
  at::Tensor size = at::full({1}, static_cast<int64_t>(text.size()), at::kLong);
  world.broadcast(size, root)->wait(deadline);
  const int64_t bytes = size.item<int64_t>();
  if (bytes < 0 || bytes > kMaxBytes) throw error(Code::kInternal, "rank {} announces {} bytes of settings, expected at most {}; is it of another version?", root, bytes, kMaxBytes);
  at::Tensor packed = at::empty({bytes}, at::kByte);
  if (world.rank() == root) std::copy(text.begin(), text.end(), packed.data_ptr<uint8_t>());
  world.broadcast(packed, root)->wait(deadline);
  return {packed.data_ptr<uint8_t>(), packed.data_ptr<uint8_t>() + bytes};
}

Settings parse(const std::string& text) {
  try {
    return json::parse(text).get<Settings>();
  } catch (const json::exception& e) {
    throw error(Code::kInternal, "rank 0's settings cannot be read ({}); is it of another version?", e.what());
  }
}

// Empty: none.
std::string differences(const Settings& first, const Settings& mine) {
  const std::map<std::string, std::string> theirs(first.begin(), first.end()), ours(mine.begin(), mine.end());
  std::vector<std::string> found;
  for (const auto& [name, value] : ours) {
    const auto other = theirs.find(name);
    if (other == theirs.end()) found.push_back(fmt::format("{} is {}, and unknown to rank 0", name, value));
    else if (other->second != value) found.push_back(fmt::format("{} is {}, on rank 0 {}", name, value, other->second));
  }
  for (const auto& [name, value] : theirs) {
    if (!ours.contains(name)) found.push_back(fmt::format("{} is unknown, on rank 0 {}", name, value));
  }
  const size_t more = found.size() > kMaxNamed ? found.size() - kMaxNamed : 0;
  found.resize(found.size() - more);
  return fmt::format("{}{}", fmt::join(found, "; "), more > 0 ? fmt::format("; and {} more", more) : "");
}

}  // namespace

void require_same_settings(Communicator& world, const Settings& settings, Deadline deadline) {
  if (world.size() == 1) return;
  const std::string mine = json(settings).dump(-1, ' ', false, json::error_handler_t::replace);
  const std::string first = broadcast_text(world, mine, 0, deadline);
  std::string different = first == mine ? "" : differences(parse(first), settings);
  // The lowest rank that differs speaks for all.
  at::Tensor speaker = at::full({1}, static_cast<int64_t>(different.empty() ? 0 : world.size() - world.rank()), at::kLong);
  world.all_reduce(speaker, Reduce::kMax)->wait(deadline);
  if (speaker.item<int64_t>() == 0) return;
  const int rank = world.size() - static_cast<int>(speaker.item<int64_t>());
  different = broadcast_text(world, different.substr(0, kMaxBytes), rank, deadline);
  throw error(Code::kInvalidArgument, "rank {} differs from rank 0: {}; start all ranks with the same configuration and the same programs", rank, different);
}

}  // namespace penstock::comm
