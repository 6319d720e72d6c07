#include "engine/page_pool.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>
#include <set>

#include "base/error.h"

namespace penstock::engine {
namespace {

// kPageTokens tokens that `first` tells apart.
std::vector<int32_t> page_of(int32_t first) {
  std::vector<int32_t> tokens(kPageTokens);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(PagePool, HandsOutEachPageOnceAndTakesItBack) {
  PagePool pool(3);
  std::set<int32_t> pages;
  while (const auto page = pool.allocate()) pages.insert(*page);
  EXPECT_EQ(pages, (std::set<int32_t>{0, 1, 2}));
  EXPECT_EQ(pool.available(), 0);
  pool.release(1);
  EXPECT_EQ(pool.allocate(), 1);
  pool.release(1);
  EXPECT_THROW(pool.release(1), Bug);
}

TEST(PagePool, APageIsFoundByWhatIsBeforeItItsTokensAndItsSalt) {
  PagePool pool(4);
  const auto first = pool.allocate().value(), second = pool.allocate().value();
  const auto after_first = pool.publish(first, "ann", 0, page_of(1));
  const auto after_second = pool.publish(second, "ann", after_first, page_of(50));
  EXPECT_EQ(pool.find("ann", 0, page_of(1))->page, first);
  EXPECT_EQ(pool.find("ann", after_first, page_of(50))->page, second);
  EXPECT_EQ(pool.find("ann", after_first, page_of(50))->prefix, after_second);
  EXPECT_FALSE(pool.find("bob", 0, page_of(1))) << "another client's";
  EXPECT_FALSE(pool.find("ann", 0, page_of(50))) << "the tokens of the second page at the beginning";
  EXPECT_FALSE(pool.find("ann", after_first, page_of(1)));
}

TEST(PagePool, APageThatNobodyHoldsIsFoundUntilItIsHandedOutAnewTheOldestFirst) {
  PagePool pool(3);
  const auto a = pool.allocate().value(), b = pool.allocate().value();
  (void)pool.publish(a, "", 0, page_of(1));
  (void)pool.publish(b, "", 0, page_of(2));
  pool.release(a);
  pool.release(b);
  EXPECT_EQ(pool.available(), 3);
  EXPECT_EQ(pool.find("", 0, page_of(1))->page, a);
  pool.release(a);  // now b is the older one
  EXPECT_NE(pool.allocate(), b) << "the page that keeps nothing goes first";
  EXPECT_EQ(pool.allocate(), b);
  EXPECT_FALSE(pool.find("", 0, page_of(2)));
  EXPECT_TRUE(pool.find("", 0, page_of(1)));
}

TEST(PagePool, TheSameTextComputedTwiceHasOneName) {
  PagePool pool(2);
  const auto a = pool.allocate().value(), b = pool.allocate().value();
  const auto prefix = pool.publish(a, "", 0, page_of(1));
  EXPECT_EQ(pool.publish(b, "", 0, page_of(1)), prefix);
  EXPECT_EQ(pool.find("", 0, page_of(1))->page, a);
}

// Whatever is done with it: each page is free, or has as many holders as took it; what is found has the tokens that were asked for.
TEST(PagePool, LosesNoPageAndGivesNoneTwiceInManyRandomSteps) {
  std::mt19937 random(1);
  PagePool pool(24);
  std::multiset<int32_t> held;
  struct Content {
    PagePool::Prefix before;
    int32_t first;
    bool operator==(const Content&) const = default;
  };
  std::map<int32_t, Content> content;  // of pages that were published
  std::set<int32_t> published;
  std::vector<PagePool::Prefix> prefixes{0};
  const auto any = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  for (int step = 0; step < 10000; ++step) {
    switch (any(4)) {
      case 0:
        if (const auto page = pool.allocate()) {
          ASSERT_FALSE(held.contains(*page)) << "step " << step;
          held.insert(*page);
          published.erase(*page);
        } else {
          ASSERT_EQ(std::set(held.begin(), held.end()).size(), 24u);
        }
        break;
      case 1:
        if (!held.empty()) {
          const auto it = std::next(held.begin(), static_cast<ptrdiff_t>(any(held.size())));
          pool.release(*it);
          held.erase(it);
        }
        break;
      case 2:
        if (!held.empty()) {
          const int32_t page = *std::next(held.begin(), static_cast<ptrdiff_t>(any(held.size())));
          if (published.contains(page)) break;
          const Content what{prefixes[any(prefixes.size())], static_cast<int32_t>(any(5))};
          prefixes.push_back(pool.publish(page, "", what.before, page_of(what.first)));
          if (prefixes.size() > 6) prefixes.erase(prefixes.begin() + 1);
          const auto found = pool.find("", what.before, page_of(what.first));
          ASSERT_TRUE(found);
          pool.release(found->page);
          if (found->page == page) {
            published.insert(page);
            content[page] = what;
          }
        }
        break;
      default: {
        const Content wanted{prefixes[any(prefixes.size())], static_cast<int32_t>(any(5))};
        if (const auto found = pool.find("", wanted.before, page_of(wanted.first))) {
          held.insert(found->page);
          ASSERT_TRUE(published.contains(found->page)) << "step " << step;
          ASSERT_EQ(content.at(found->page), wanted) << "step " << step;
        }
      }
    }
    ASSERT_EQ(pool.available() + static_cast<int>(std::set(held.begin(), held.end()).size()), 24) << "step " << step;
  }
}

}  // namespace
}  // namespace penstock::engine
