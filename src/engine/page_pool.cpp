#include "engine/page_pool.h"

#include <algorithm>

#include "base/error.h"

namespace penstock::engine {

PagePool::PagePool(int num_pages) : pages_(static_cast<size_t>(num_pages)) {
  for (int32_t page = 0; page < num_pages; ++page) pages_[static_cast<size_t>(page)].place = free_.insert(free_.end(), page);
}

std::optional<int32_t> PagePool::allocate() {
  if (free_.empty()) return std::nullopt;
  const int32_t number = free_.front();
  free_.pop_front();
  Page& page = pages_[static_cast<size_t>(number)];
  if (page.published) published_.erase(*page.published);
  page.published.reset();
  page.holders = 1;
  return number;
}

void PagePool::release(int32_t number) {
  Page& page = pages_.at(static_cast<size_t>(number));
  PENSTOCK_CHECK(page.holders > 0, "page {} is released, but nobody holds it", number);
  if (--page.holders > 0) return;
  page.place = free_.insert(page.published ? free_.end() : free_.begin(), number);
}

std::optional<PagePool::Shared> PagePool::find(std::string_view salt, Prefix prefix, std::span<const int32_t> tokens) {
  const auto found = published_.find(name_of(salt, prefix, tokens));
  if (found == published_.end()) return std::nullopt;
  Page& page = pages_[static_cast<size_t>(found->second.page)];
  if (page.holders++ == 0) free_.erase(page.place);
  return found->second;
}

PagePool::Prefix PagePool::publish(int32_t number, std::string_view salt, Prefix prefix, std::span<const int32_t> tokens) {
  Page& page = pages_.at(static_cast<size_t>(number));
  PENSTOCK_CHECK(page.holders > 0 && !page.published, "page {} is published with {} holders", number, page.holders);
  const auto [entry, is_new] = published_.try_emplace(name_of(salt, prefix, tokens), Shared{number, last_prefix_ + 1});
  if (!is_new) return entry->second.prefix;
  page.published = entry;
  return ++last_prefix_;
}

PagePool::Name PagePool::name_of(std::string_view salt, Prefix prefix, std::span<const int32_t> tokens) {
  PENSTOCK_CHECK(tokens.size() == kPageTokens, "a page of {} tokens", tokens.size());
  Name name{prefix, {}, prefix == 0 ? std::string(salt) : std::string()};
  std::copy(tokens.begin(), tokens.end(), name.tokens.begin());
  return name;
}

}  // namespace penstock::engine
