#include "plan/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "plan/lowering.h"
#include "plan/schedule_check.h"
#include "plan/schedule_csv.h"

namespace penstock::plan {
namespace {

using testing::HasSubstr;

Schedule make(const std::string& name, int ranks, int microbatches, int chunks = 0) { return make_schedule({name, ranks, microbatches, chunks}).value(); }

std::string refusal(const std::string& name, int ranks, int microbatches, int chunks = 0) {
  const auto made = make_schedule({name, ranks, microbatches, chunks});
  return made.ok() ? "accepted" : made.error().message();
}

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
  EXPECT_EQ(to_csv(make("gpipe", 2, 2)),
            "0F0,0F1,,,0B0,0B1\n"
            ",1F0,1F1,1B0,1B1,\n");
}

TEST(Schedule, OneForwardOneBackwardAlternatesAfterItsWarmUp) {
  EXPECT_EQ(to_csv(make("1f1b", 3, 4)),
            "0F0,0F1,0F2,,,0B0,0F3,0B1,,0B2,,0B3\n"
            ",1F0,1F1,,1B0,1F2,1B1,1F3,1B2,,1B3,\n"
            ",,2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3,,\n");
}

TEST(Schedule, WithCommunicationPlacesEachReceiveTogetherWithItsSend) {
  EXPECT_EQ(to_csv(with_communication(make("1f1b", 2, 2))),
            "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n"
            "1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1\n");
}

TEST(Schedule, StagesOnOneRankHandOverInMemory) {
  Schedule two_chunks{"two chunks on one rank", 1, 2, 1, {0, 0}, {{*parse_action("0F0"), *parse_action("1F0"), *parse_action("1B0"), *parse_action("0B0")}}};
  EXPECT_EQ(with_communication(two_chunks), two_chunks);
}

TEST(Schedule, InterleavedChunksSendFromTheLastRankBackToTheFirst) {
  Schedule chunks{"forward, two chunks", 2, 4, 1, {0, 1, 0, 1}, {{*parse_action("0F0"), *parse_action("2F0")}, {*parse_action("1F0"), *parse_action("3F0")}}};
  EXPECT_EQ(to_csv(with_communication(chunks)),
            "0F0,0SEND_F0,2RECV_F0,2F0,2SEND_F0\n"
            "1RECV_F0,1F0,1SEND_F0,3RECV_F0,3F0\n");
}

TEST(Schedule, InputGradientsTravelAndWeightGradientsStay) {
  Schedule split{"split backward", 2, 2, 1, {0, 1}, {{}, {}}};
  for (const char* text : {"0F0", "0I0", "0W0"}) split.ranks[0].push_back(*parse_action(text));
  for (const char* text : {"1F0", "1I0", "1W0"}) split.ranks[1].push_back(*parse_action(text));
  EXPECT_EQ(to_csv(with_communication(split)),
            "0F0,0SEND_F0,0RECV_B0,0I0,0W0\n"
            "1RECV_F0,1F0,1I0,1SEND_B0,1W0\n");
}

TEST(Schedule, ThatCannotBeCarriedOutIsNotLowered) {
  Schedule backwards_first{"backward first", 2, 2, 1, {0, 1}, {{*parse_action("0B0"), *parse_action("0F0")}, {*parse_action("1F0"), *parse_action("1B0")}}};
  try {
    (void)with_communication(backwards_first);
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kInvalidArgument);
    EXPECT_THAT(e.message(), HasSubstr("rank 0 stands at 0B0"));
    EXPECT_THAT(e.message(), HasSubstr("rank 1 stands at 1F0"));
  }
}

TEST(Schedule, NamesTheFieldThatIsWrong) {
  EXPECT_THAT(refusal("1f2b", 2, 4), HasSubstr("'1f2b'; expected one of gpipe, 1f1b, eager-1f1b, interleaved-1f1b"));
  EXPECT_THAT(refusal("gpipe", 0, 4), HasSubstr("ranks: expected 1 to 1024, found 0"));
  EXPECT_THAT(refusal("gpipe", 2, 65537), HasSubstr("microbatches: expected 1 to 65536, found 65537"));
  EXPECT_THAT(refusal("1f1b", 2, 4, 2), HasSubstr("chunks: 1f1b has 1 for each rank, found 2"));
  EXPECT_THAT(refusal("zb-v", 2, 4, 3), HasSubstr("chunks: zb-v has 2 for each rank, found 3"));
  EXPECT_THAT(refusal("looped-bfs", 4, 4, 2000), HasSubstr("chunks: expected 1 to 1024 for 4 ranks, found 2000"));
  EXPECT_THAT(refusal("looped-bfs", 4, 4, -1), HasSubstr("chunks: expected 1 to 1024 for 4 ranks, found -1"));
  EXPECT_THAT(refusal("gpipe", 1024, 65536), HasSubstr("are 67108864 forwards; expected at most 4000000"));
  EXPECT_THAT(refusal("interleaved-1f1b", 4, 9), HasSubstr("9 micro-batches over 4 ranks go in 2 rounds; expected a multiple of 2, such as 8"));
  EXPECT_THAT(refusal("zb-h1", 2, 5), HasSubstr("expected a multiple of 2, such as 4"));
  EXPECT_THAT(refusal("dualpipev", 4, 7), HasSubstr("at least as many micro-batches as stages, 2 x 4 ranks = 8; found 7"));
}

TEST(Schedule, EagerRunsTwiceAsManyForwardsAhead) {
  EXPECT_EQ(to_csv(with_communication(make("eager-1f1b", 2, 4))).substr(0, 40), "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0F2,0");
}

// Orders as torch.distributed.pipelining gives them.
TEST(Schedule, InterleavedGoesThroughItsChunksInRounds) {
  EXPECT_EQ(to_csv(make("interleaved-1f1b", 2, 4)),
            "0F0,0F1,2F0,2F1,0F2,2B0,0F3,2B1,2F2,0B0,2F3,0B1,,2B2,,2B3,0B2,0B3\n"
            ",1F0,1F1,3F0,3B0,3F1,3B1,1F2,1B0,1F3,1B1,3F2,3B2,3F3,3B3,1B2,1B3,\n");
}

TEST(Schedule, LoopedBfsRunsBackwardsInReverse) {
  EXPECT_EQ(to_csv(make("looped-bfs", 1, 2)), "0F0,0F1,1F0,1F1,1B1,1B0,0B1,0B0\n");
}

TEST(Schedule, ZbH1PutsWeightGradientsOffByTheRank) {
  EXPECT_EQ(to_csv(make("zb-h1", 2, 4)),
            "0F0,0F1,,0I0,0W0,0F2,0I1,0W1,0F3,0I2,0W2,0I3,0W3\n"
            ",1F0,1I0,1F1,1I1,1W0,1F2,1I2,1W1,1F3,1I3,1W2,1W3\n");
}

TEST(Schedule, ZbVGoesThereAndBack) {
  const Schedule v = make("zb-v", 2, 3);
  EXPECT_EQ(v.stage_ranks, (std::vector<int>{0, 1, 1, 0}));
  EXPECT_EQ(v.stages_of(0), (std::vector<int>{0, 3}));
  EXPECT_EQ(to_csv(v),
            "0F0,0F1,0F2,3F0,3I0,3W0,3F1,3I1,3W1,0I0,0W0,3F2,3I2,3W2,0I1,0W1,0I2,0W2,\n"
            ",1F0,2F0,1F1,2F1,2I0,2W0,1F2,1I0,1W0,2F2,2I1,2W1,1I1,2I2,1I2,1W1,2W2,1W2\n");
}

TEST(Schedule, DualpipevJoinsForwardsAndBackwards) {
  const std::string csv = to_csv(make("dualpipev", 2, 4));
  EXPECT_THAT(csv, HasSubstr("(0F3;3B1)OVERLAP_F_B,(3F2;0B0)OVERLAP_F_B,3B2,(3F3;0B1)OVERLAP_F_B"));
  EXPECT_THAT(csv, HasSubstr("1F2,2B0,(2F2;1B0)OVERLAP_F_B,(1F3;2B1)OVERLAP_F_B"));
}

TEST(Schedule, ForwardPartKeepsThePlacement) {
  const Schedule forwards = forward_part(make("zb-v", 2, 2));
  EXPECT_EQ(to_csv(forwards), "0F0,0F1,,3F0,,3F1\n,1F0,2F0,1F1,2F1,\n");
}

TEST(ScheduleText, AlignsItsColumns) {
  EXPECT_EQ(to_text(make("gpipe", 2, 2)),
            "rank 0 | 0F0 0F1 .   .   0B0 0B1\n"
            "rank 1 | .   1F0 1F1 1B0 1B1 .\n");
  EXPECT_EQ(to_text(with_communication(make("forward", 2, 1))),
            "rank 0 | 0F0      0SEND_F0\n"
            "rank 1 | 1RECV_F0 1F0\n");
}

// Reads text and says what came of it.
std::string read(const std::string& text) {
  const auto schedule = parse_csv(text, "mine.csv");
  return schedule.ok() ? "read" : schedule.error().message();
}

TEST(ScheduleCsv, ReadsWhatItWrites) {
  for (const KnownSchedule& known : known_schedules()) {
    for (const bool communication : {false, true}) {
      SCOPED_TRACE(known.name);
      Schedule schedule = make(known.name, 3, 6);
      if (communication) schedule = with_communication(schedule);
      const Schedule again = parse_csv(to_csv(schedule), schedule.name).value();
      EXPECT_EQ(again, schedule);
      EXPECT_EQ(to_csv(again), to_csv(schedule));
    }
  }
}

TEST(ScheduleCsv, ReadsWhatPeopleWrite) {
  const Schedule schedule = parse_csv(" 0F0 , ,0B0,0REDUCE_GRAD\r\n1UNSHARD,,1F0,1B0, 1RESHARD\r\n\n", "x").value();
  EXPECT_EQ(to_csv(schedule), "0F0,,,0B0\n,1F0,1B0,\n");
}

TEST(ScheduleCsv, NamesTheFieldThatIsWrong) {
  EXPECT_THAT(read("0F0,0X0"), HasSubstr("mine.csv:1: field 2: expected an action such as 0F0"));
  EXPECT_THAT(read("0F0\n1F0,(1F1;0B0"), HasSubstr("mine.csv:2: field 2: expected an action"));
  EXPECT_THAT(read("(0B0;0F0)OVERLAP_F_B"), HasSubstr("field 1: expected an action"));
  EXPECT_THAT(read("0F0,70000F0"), HasSubstr("field 2: expected stages and micro-batches up to 65535"));
  EXPECT_THAT(read("65535F65535"), HasSubstr("expected a product of at most 4000000"));
  EXPECT_THAT(read(""), HasSubstr("mine.csv:1: expected actions of rank 0, found none"));
  EXPECT_THAT(read("0F0,0B0\n\n1F0,1B0"), HasSubstr("mine.csv:2: expected actions of rank 1, found none"));
  EXPECT_THAT(read("0F0,0B0" + std::string(1500, '\n') + "1F0"), HasSubstr("1501 lines; expected at most 1024 ranks"));
  EXPECT_THAT(read("0F0,0B0\n2F0,2B0"), HasSubstr("stage 1 of 3 has no action"));
  EXPECT_THAT(read("0F0,0F0,0B0"), HasSubstr("rank 0 has 0F0 twice"));
  EXPECT_THAT(read("0F0,0B0,0F1"), HasSubstr("rank 0 lacks 0B1"));
  EXPECT_THAT(read("0F0,0B0\n0F1,0B1"), HasSubstr("but stage 0 is on rank 1"));
}

TEST(ScheduleCsv, ACycleIsFoundWhenItIsProven) {
  const Schedule cycle = parse_csv("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n", "cycle.csv").value();
  try {
    (void)proven(cycle);
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_THAT(e.message(), HasSubstr("cycle.csv cannot be carried out: rank 0 stands at 0B0, whose input nobody has made; rank 1 stands at 1F1"));
  }
}

}  // namespace
}  // namespace penstock::plan
