#include "base/shown.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(Shown, CutsLongTextsBetweenCharacters) {
  EXPECT_EQ(shown(""), "");
  EXPECT_EQ(shown(std::string(128, 'x')), std::string(128, 'x'));
  EXPECT_EQ(shown(std::string(129, 'x')), std::string(128, 'x') + "...");
  EXPECT_EQ(shown(std::string(127, 'x') + "\u00e9"), std::string(127, 'x') + "...");
}

}  // namespace
}  // namespace penstock
