#include "plan/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plan/schedule_check.h"
#include "plan/schedule_text.h"

namespace penstock::plan {
namespace {

using testing::HasSubstr;

TEST(Action, IsWrittenInTorchNotationAndReadBack) {
  for (const char* text : {"0F0", "3B2", "3I2", "3W12", "0SEND_F0", "1RECV_F0", "1SEND_B0", "10RECV_B7"}) {
    const auto action = parse_action(text);
    ASSERT_TRUE(action) << text;
    EXPECT_EQ(to_string(*action), text);
  }
}

TEST(Action, IsNotReadFromAnythingElse) {
  for (const char* text : {"", "F", "0", "0F", "F0", "0X1", "0F1 ", " 0F1", "-1F0", "0F-1", "0FF1", "99999999999F0", "0SEND_0"}) {
    EXPECT_FALSE(parse_action(text)) << "'" << text << "'";
  }
}

TEST(Action, KnowsTheOtherEndOfAMessage) {
  for (const auto& [sent, received] : {std::pair("0SEND_F5", "1RECV_F5"), std::pair("3SEND_B2", "2RECV_B2")}) {
    EXPECT_EQ(to_string(counterpart(*parse_action(sent))), received);
    EXPECT_EQ(to_string(counterpart(*parse_action(received))), sent);
  }
  EXPECT_THROW((void)peer_stage(*parse_action("0F0")), Bug);
  EXPECT_THROW((void)counterpart(*parse_action("0W0")), Bug);
}

TEST(Schedule, GpipeRunsAllForwardsThenAllBackwards) {
  EXPECT_EQ(to_csv(gpipe(2, 2)),
            "0F0,0F1,,,0B0,0B1\n"
            ",1F0,1F1,1B0,1B1,\n");
}

TEST(Schedule, OneForwardOneBackwardAlternatesAfterItsWarmUp) {
  EXPECT_EQ(to_csv(one_f_one_b(3, 4)),
            "0F0,0F1,0F2,,,0B0,0F3,0B1,,0B2,,0B3\n"
            ",1F0,1F1,,1B0,1F2,1B1,1F3,1B2,,1B3,\n"
            ",,2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3,,\n");
}

TEST(Schedule, WithCommunicationPlacesEachReceiveTogetherWithItsSend) {
  EXPECT_EQ(to_csv(with_communication(one_f_one_b(2, 2))),
            "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n"
            "1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1\n");
}

TEST(Schedule, StagesOnOneRankHandOverInMemory) {
  Schedule two_chunks{"two chunks on one rank", 1, 2, 1, {{*parse_action("0F0"), *parse_action("1F0"), *parse_action("1B0"), *parse_action("0B0")}}};
  EXPECT_EQ(with_communication(two_chunks), two_chunks);
}

TEST(Schedule, InterleavedChunksSendFromTheLastRankBackToTheFirst) {
  Schedule chunks{"forward, two chunks", 2, 4, 1, {{*parse_action("0F0"), *parse_action("2F0")}, {*parse_action("1F0"), *parse_action("3F0")}}};
  EXPECT_EQ(to_csv(with_communication(chunks)),
            "0F0,0SEND_F0,2RECV_F0,2F0,2SEND_F0\n"
            "1RECV_F0,1F0,1SEND_F0,3RECV_F0,3F0\n");
}

TEST(Schedule, InputGradientsTravelAndWeightGradientsStay) {
  Schedule split{"split backward", 2, 2, 1, {{}, {}}};
  for (const char* text : {"0F0", "0I0", "0W0"}) split.ranks[0].push_back(*parse_action(text));
  for (const char* text : {"1F0", "1I0", "1W0"}) split.ranks[1].push_back(*parse_action(text));
  EXPECT_EQ(to_csv(with_communication(split)),
            "0F0,0SEND_F0,0RECV_B0,0I0,0W0\n"
            "1RECV_F0,1F0,1I0,1SEND_B0,1W0\n");
}

TEST(Schedule, ThatCannotBeCarriedOutIsNotLowered) {
  Schedule backwards_first{"backward first", 2, 2, 1, {{*parse_action("0B0"), *parse_action("0F0")}, {*parse_action("1F0"), *parse_action("1B0")}}};
  try {
    (void)with_communication(backwards_first);
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kInvalidArgument);
    EXPECT_THAT(e.message(), HasSubstr("rank 0 stands at 0B0"));
    EXPECT_THAT(e.message(), HasSubstr("rank 1 stands at 1F0"));
  }
}

TEST(Schedule, IsFoundByName) {
  EXPECT_EQ(schedule_by_name("1f1b", 2, 4).value(), one_f_one_b(2, 4));
  EXPECT_EQ(schedule_by_name("gpipe", 3, 1).value(), gpipe(3, 1));
  EXPECT_EQ(schedule_by_name("forward", 1, 2).value(), forward_only(1, 2));
}

TEST(Schedule, NamesTheFieldThatIsWrong) {
  EXPECT_THAT(schedule_by_name("1f2b", 2, 4).error().message(), HasSubstr("'1f2b'; expected one of gpipe, 1f1b, forward"));
  EXPECT_THAT(schedule_by_name("gpipe", 0, 4).error().message(), HasSubstr("ranks: expected 1 to 1024, found 0"));
  EXPECT_THAT(schedule_by_name("gpipe", 2, 65537).error().message(), HasSubstr("microbatches: expected 1 to 65536, found 65537"));
}

TEST(ScheduleText, AlignsItsColumns) {
  EXPECT_EQ(to_text(gpipe(2, 2)),
            "rank 0 | 0F0 0F1 .   .   0B0 0B1\n"
            "rank 1 | .   1F0 1F1 1B0 1B1 .\n");
  EXPECT_EQ(to_text(with_communication(forward_only(2, 1))),
            "rank 0 | 0F0      0SEND_F0\n"
            "rank 1 | 1RECV_F0 1F0\n");
}

}  // namespace
}  // namespace penstock::plan
