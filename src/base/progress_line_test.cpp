#include "base/progress_line.h"

#include <gtest/gtest.h>

#include <sstream>

namespace penstock {
namespace {

Clock::time_point at_ms(int ms) { return Clock::time_point(milliseconds(ms)); }

ProgressOptions terminal_of(int columns) {
  ProgressOptions options;
  options.terminal = true;
  options.columns = columns;
  return options;
}

TEST(ProgressLine, IsRewrittenInPlaceOnATerminal) {
  std::ostringstream out;
  ProgressLine line(out, terminal_of(49));
  line.update(0.0, "step 1", at_ms(0));
  line.update(0.5, "step 2", at_ms(100));
  line.finish();
  EXPECT_EQ(out.str(), "\r[--------]   0%  step 1\x1b[K\r[####----]  50%  step 2\x1b[K\n");
}

TEST(ProgressLine, IsCutToTheWidthOfTheTerminal) {
  for (const int columns : {20, 39, 40, 41, 80, 200}) {
    std::ostringstream out;
    ProgressLine line(out, terminal_of(columns));
    line.update(0.25, std::string(300, 'x'), at_ms(0));
    const std::string drawn = out.str();
    EXPECT_EQ(drawn.size(), std::string("\r\x1b[K").size() + static_cast<size_t>(columns) - 1) << drawn;
  }
}

TEST(ProgressLine, DrawsOnlyTheLastOfUpdatesThatComeTooFast) {
  std::ostringstream out;
  ProgressLine line(out, terminal_of(30));
  line.update(0.1, "one", at_ms(0));
  line.update(0.2, "two", at_ms(1));
  line.update(0.3, "three", at_ms(2));
  line.finish();
  EXPECT_EQ(out.str(), "\r 10%  one\x1b[K\r 30%  three\x1b[K\n");
}

TEST(ProgressLine, IsSeparateLinesAtASlowPaceInALog) {
  std::ostringstream out;
  ProgressLine line(out, ProgressOptions{});
  line.update(0.1, "one", at_ms(0));
  line.update(0.2, "two", at_ms(9999));
  line.update(0.3, "three", at_ms(10000));
  line.update(1.0, "four", at_ms(10001));
  line.finish();
  EXPECT_EQ(out.str(), " 10%  one\n 30%  three\n100%  four\n");
}

TEST(ProgressLine, FinishesOnceAndLeavesNothingWhenNothingWasDrawn) {
  std::ostringstream out;
  {
    ProgressLine line(out, terminal_of(80));
    line.finish();
    line.update(0.5, "late", at_ms(0));
  }
  EXPECT_EQ(out.str(), "");
}

TEST(ProgressLine, IsFinishedByItsDestructor) {
  std::ostringstream out;
  {
    ProgressLine line(out, terminal_of(30));
    line.update(0.5, "half", at_ms(0));
  }
  EXPECT_EQ(out.str(), "\r 50%  half\x1b[K\n");
}

TEST(ProgressLine, MakesRoomForALineThatStays) {
  std::ostringstream out;
  ProgressLine line(out, terminal_of(30));
  line.update(0.5, "half", at_ms(0));
  line.print_above("checkpoint written");
  EXPECT_EQ(out.str(), "\r 50%  half\x1b[K\r\x1b[Kcheckpoint written\n\r 50%  half\x1b[K");
}

TEST(ProgressLine, DrawsAFineBarInUnicodeAndClampsItsFraction) {
  ProgressOptions options = terminal_of(49);
  options.unicode = true;
  const auto drawn = [&](double fraction) {
    std::ostringstream out;
    ProgressLine line(out, options);
    line.update(fraction, "", at_ms(0));
    return out.str();
  };
  EXPECT_EQ(drawn(0.5 + 1.0 / 16), "\r████▌░░░  56%  \x1b[K");
  EXPECT_EQ(drawn(7), "\r████████ 100%  \x1b[K");
  EXPECT_EQ(drawn(-1), "\r░░░░░░░░   0%  \x1b[K");
}

TEST(ProgressLine, CutsBetweenCharactersNotInsideThem) {
  EXPECT_EQ(cut_to_columns("aé·b", 2), "aé");
  EXPECT_EQ(cut_to_columns("aé·b", 3), "aé·");
  EXPECT_EQ(cut_to_columns("aé·b", 9), "aé·b");
  EXPECT_EQ(cut_to_columns("abc", 0), "");
  EXPECT_EQ(cut_to_columns("abc", -5), "");
}

}  // namespace
}  // namespace penstock
