#include "engine/batch_scheduler.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "engine/slot_table.h"

namespace penstock::engine {
namespace {

SchedulerLimits limits_of(int max_sequences, int max_waiting, int max_step_rows, int num_stages = 1) {
  return {.max_sequences = max_sequences, .max_waiting = max_waiting, .max_step_rows = max_step_rows, .max_sequence_tokens = 100, .num_stages = num_stages,
          .num_pages = 7 * max_sequences};
}

SequenceInput input(int prompt, int max_tokens) { return {std::vector<int32_t>(static_cast<size_t>(prompt), 7), max_tokens}; }

// A prompt without a beginning like another one's.
SequenceInput unlike(int number, int prompt, int max_tokens) {
  SequenceInput result = input(prompt, max_tokens);
  std::iota(result.prompt.begin(), result.prompt.end(), 1000 * number);
  return result;
}

std::vector<SampledToken> tokens(const BatchScheduler::Step& step, int32_t id = 5) {
  return std::vector<SampledToken>(static_cast<size_t>(step.plan.answers()), SampledToken{id});
}

TEST(BatchScheduler, CutsALongPromptAtPagesAndSamplesAtItsEndOnly) {
  BatchScheduler scheduler(limits_of(2, 4, 20));
  ASSERT_TRUE(scheduler.add(1, input(45, 2)));
  std::vector<int> counts;
  for (;;) {
    const auto step = scheduler.next();
    ASSERT_TRUE(step);
    counts.push_back(step->plan.rows());
    const auto got = scheduler.complete(*step, tokens(*step));
    if (step->plan.answers() == 1 && got[0].at_limit) break;
  }
  EXPECT_EQ(counts, (std::vector<int>{16, 16, 13, 1}));
}

TEST(BatchScheduler, KeepsDisjointStepsInFlightOneForEachStage) {
  BatchScheduler scheduler(limits_of(8, 8, 100, 2));
  for (int id = 1; id <= 5; ++id) ASSERT_TRUE(scheduler.add(static_cast<RequestId>(id), unlike(id, 2, 9)));
  const auto first = scheduler.next(), second = scheduler.next();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->ids.size(), 3u) << "ceil(5 / 2)";
  EXPECT_EQ(second->ids.size(), 2u);
  std::set<RequestId> all(first->ids.begin(), first->ids.end());
  all.insert(second->ids.begin(), second->ids.end());
  EXPECT_EQ(all.size(), 5u) << "a sequence is in one step at a time";
  EXPECT_FALSE(scheduler.next());
}

TEST(BatchScheduler, ARemovedSequenceIsInNoLaterStepAndItsSlotIsUsedAgain) {
  BatchScheduler scheduler(limits_of(1, 4, 100));
  ASSERT_TRUE(scheduler.add(1, input(2, 50)));
  ASSERT_TRUE(scheduler.add(2, input(2, 50)));
  const auto step = scheduler.next();
  scheduler.remove(1);
  EXPECT_FALSE(scheduler.next()) << "its slot is still being written";
  EXPECT_TRUE(scheduler.complete(*step, tokens(*step)).empty());
  const auto next = scheduler.next();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->ids, std::vector<RequestId>{2});
  scheduler.remove(2);
  EXPECT_TRUE(scheduler.complete(*next, tokens(*next)).empty());
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(scheduler.stats().pages_held, 0);
}

TEST(BatchScheduler, RefusesMoreThanItMayKeepWaiting) {
  BatchScheduler scheduler(limits_of(1, 1, 100));
  EXPECT_TRUE(scheduler.add(1, input(2, 50)));
  EXPECT_FALSE(scheduler.add(2, input(2, 50)));
}

TEST(BatchScheduler, StreamsGoOnWithEveryStepAndAPromptGetsWhatRowsItMay) {
  BatchScheduler scheduler(limits_of(4, 8, 64));
  ASSERT_TRUE(scheduler.add(1, unlike(1, 3, 50)));
  const auto first = scheduler.next(8);
  (void)scheduler.complete(*first, tokens(*first));
  EXPECT_EQ(first->prompt_rows, 3);
  ASSERT_TRUE(scheduler.add(2, unlike(2, 90, 5)));
  for (int done = 0; done < 88; done += 8) {
    const auto step = scheduler.next(8);
    ASSERT_TRUE(step);
    EXPECT_EQ(step->ids, (std::vector<RequestId>{1, 2}));
    EXPECT_EQ(step->prompt_rows, 8);
    (void)scheduler.complete(*step, tokens(*step));
  }
  scheduler.remove(1);
  const auto alone = scheduler.next(0);
  ASSERT_TRUE(alone) << "nobody streams: the prompt gets all rows";
  EXPECT_EQ(alone->prompt_rows, 2);
}

// Steps of equal prompts: rows that each step computes.
std::vector<int> rows_of_equal_prompts(int count, const std::function<std::string(int)>& salt_of, EngineStats& stats) {
  BatchScheduler scheduler(limits_of(8, 8, 64));
  for (int id = 1; id <= count; ++id) {
    SequenceInput one = input(50, 1);
    one.salt = salt_of(id);
    EXPECT_TRUE(scheduler.add(static_cast<RequestId>(id), one));
  }
  std::vector<int> rows;
  while (const auto step = scheduler.next()) {
    rows.push_back(step->plan.rows());
    for (const auto& sampled : scheduler.complete(*step, tokens(*step))) scheduler.remove(sampled.id);
  }
  stats = scheduler.stats();
  return rows;
}

TEST(BatchScheduler, OfEqualPromptsThatComeTogetherOneIsComputedAndTheOthersComputeTheirLastPage) {
  EngineStats stats;
  EXPECT_EQ(rows_of_equal_prompts(4, [](int) { return "ann"; }, stats), (std::vector<int>{50 + 3 * 2}));
  EXPECT_EQ(stats.prefix_queries, 200);
  EXPECT_EQ(stats.prefix_hits, 3 * 48);
  EXPECT_EQ(stats.pages_held, 0);
}

TEST(BatchScheduler, PagesOfAnotherSaltAreNotFound) {
  EngineStats stats;
  const auto rows = rows_of_equal_prompts(4, [](int id) { return std::to_string(id); }, stats);
  EXPECT_EQ(std::accumulate(rows.begin(), rows.end(), 0), 200);
  EXPECT_EQ(stats.prefix_hits, 0);
}

TEST(BatchScheduler, ALaterTurnOfAConversationFindsTheEarlierOne) {
  BatchScheduler scheduler(limits_of(2, 2, 64));
  SequenceInput turn = unlike(1, 30, 10);
  ASSERT_TRUE(scheduler.add(1, turn));
  std::vector<int32_t> text = turn.prompt;
  while (!scheduler.idle()) {
    const auto step = scheduler.next();
    for (const auto& sampled : scheduler.complete(*step, tokens(*step, static_cast<int32_t>(text.size())))) {
      text.push_back(sampled.token.id);
      if (sampled.at_limit) scheduler.remove(1);
    }
  }
  text.push_back(3);
  ASSERT_TRUE(scheduler.add(2, {text, 1}));
  const auto step = scheduler.next();
  EXPECT_EQ(step->plan.sequences[0].start, 32) << "41 tokens, of which two pages were full";
}

TEST(BatchScheduler, TheYoungestIsPutBackWhenPagesRunOutAndGoesOnWhereItWas) {
  SchedulerLimits limits = limits_of(2, 4, 64);
  limits.num_pages = 7;  // one sequence of full length
  BatchScheduler scheduler(limits);
  ASSERT_TRUE(scheduler.add(1, unlike(1, 40, 60)));  // 3 pages, 7 in the end
  ASSERT_TRUE(scheduler.add(2, unlike(2, 40, 20)));  // 3 pages, 4 in the end
  std::map<RequestId, std::vector<int32_t>> made;
  std::map<RequestId, int> begun;
  for (int steps = 0; !scheduler.idle(); ++steps) {
    ASSERT_LT(steps, 200);
    const auto step = scheduler.next();
    ASSERT_TRUE(step);
    for (size_t i = 0; i < step->ids.size(); ++i) {
      const auto& part = step->plan.sequences[i];
      if (!part.begins) continue;
      ++begun[step->ids[i]];
      EXPECT_EQ(part.begins->completion, made[step->ids[i]]) << "it has what it had";
    }
    std::vector<SampledToken> sampled;
    for (size_t i = 0; i < step->ids.size(); ++i) {
      if (step->plan.sequences[i].samples) sampled.push_back({static_cast<int32_t>(made[step->ids[i]].size())});
    }
    for (const auto& got : scheduler.complete(*step, sampled)) {
      made[got.id].push_back(got.token.id);
      if (got.at_limit) scheduler.remove(got.id);
    }
  }
  EXPECT_EQ(made[1].size(), 60u);
  EXPECT_EQ(made[2].size(), 20u);
  EXPECT_EQ(begun[1], 1);
  EXPECT_GE(begun[2], 2);
  EXPECT_EQ(scheduler.stats().preemptions, begun[2] - 1);
}

// A stage in miniature: what each page holds, by the position's whole text. What a step reads must be what its sequence says.
class PageMemory {
 public:
  explicit PageMemory(int num_pages) : content_(static_cast<size_t>(num_pages * kPageTokens)) {}
  void write(std::span<const int32_t> pages, int position, size_t text) { content_[at(pages, position)] = text; }
  [[nodiscard]] size_t read(std::span<const int32_t> pages, int position) const { return content_[at(pages, position)]; }

 private:
  static size_t at(std::span<const int32_t> pages, int position) {
    return static_cast<size_t>(pages[static_cast<size_t>(position / kPageTokens)] * kPageTokens + position % kPageTokens);
  }
  std::vector<size_t> content_;
};

size_t text_hash(const std::string& salt, const std::vector<int32_t>& text, int length) {
  size_t hash = std::hash<std::string>()(salt);
  for (int i = 0; i < length; ++i) hash = (hash ^ static_cast<size_t>(text[static_cast<size_t>(i)])) * 0x9E3779B97F4A7C15ull + 1;
  return hash;
}

struct Client {
  SequenceInput input;
  std::vector<int32_t> text;
};

// Whatever comes and goes: each sequence finds its own text in its pages, all come to their ends, and no page is lost.
TEST(BatchScheduler, ManyRandomSequencesEachReadWhatTheyHaveWritten) {
  for (const int stages : {1, 3}) {
    std::mt19937 random(static_cast<unsigned>(stages));
    const auto any = [&](int from, int to) { return std::uniform_int_distribution(from, to)(random); };
    SchedulerLimits limits{.max_sequences = 6, .max_waiting = 20, .max_step_rows = 40, .max_sequence_tokens = 100, .num_stages = stages, .num_pages = 12};
    BatchScheduler scheduler(limits);
    SlotTable slots(limits.max_sequences, limits.num_pages);
    PageMemory memory(limits.num_pages);
    std::map<RequestId, Client> clients;
    std::deque<BatchScheduler::Step> in_flight;
    RequestId next_id = 1;
    int ended = 0;
    for (int round = 0; round < 10000 || !scheduler.idle(); ++round) {
      ASSERT_LT(round, 20000) << "it stands still";
      if (round < 10000 && any(0, 2) == 0) {
        SequenceInput one = input(any(1, 90), any(1, 30));
        if (any(0, 1) == 0) one.prompt.back() = any(0, 3);  // some begin alike, and some go on alike
        one.salt = any(0, 4) == 0 ? "other" : "";
        if (scheduler.add(next_id, one)) clients[next_id] = {one, one.prompt};
        ++next_id;
      }
      if (!clients.empty() && any(0, 30) == 0) {
        const auto it = std::next(clients.begin(), any(0, static_cast<int>(clients.size()) - 1));
        scheduler.remove(it->first);
        clients.erase(it);
      }
      while (static_cast<int>(in_flight.size()) < stages) {
        auto step = scheduler.next(any(in_flight.empty() ? 1 : 0, 40));
        if (!step) break;
        // The stages compute a step before the next one: first all writes, then all reads.
        slots.apply(step->plan);
        for (size_t i = 0; i < step->ids.size(); ++i) {
          const auto& part = step->plan.sequences[i];
          const auto& client = clients.at(step->ids[i]);
          for (int p = part.start; p < part.start + part.count; ++p) memory.write(slots.pages(part.slot), p, text_hash(client.input.salt, client.text, p + 1));
        }
        for (size_t i = 0; i < step->ids.size(); ++i) {
          const auto& part = step->plan.sequences[i];
          const auto& client = clients.at(step->ids[i]);
          for (int p = 0; p < part.start + part.count; ++p) {
            ASSERT_EQ(memory.read(slots.pages(part.slot), p), text_hash(client.input.salt, client.text, p + 1)) << "round " << round << ", position " << p;
          }
          ASSERT_EQ(part.samples, part.start + part.count == static_cast<int>(client.text.size()));
        }
        in_flight.push_back(std::move(*step));
      }
      if (in_flight.empty()) {
        ASSERT_TRUE(scheduler.idle()) << "round " << round;
        continue;
      }
      for (const auto& got : scheduler.complete(in_flight.front(), tokens(in_flight.front(), any(0, 2)))) {
        auto& client = clients.at(got.id);
        client.text.push_back(got.token.id);
        if (!got.at_limit) continue;
        ++ended;
        EXPECT_TRUE(client.text.size() == 100 || client.text.size() == client.input.prompt.size() + static_cast<size_t>(client.input.max_tokens));
        scheduler.remove(got.id);
        clients.erase(got.id);
      }
      in_flight.pop_front();
    }
    EXPECT_TRUE(clients.empty());
    EXPECT_GT(ended, 300);
    EXPECT_GT(scheduler.stats().preemptions, 0);
    EXPECT_GT(scheduler.stats().prefix_hits, 0);
    EXPECT_EQ(scheduler.stats().pages_held, 0);
  }
}

}  // namespace
}  // namespace penstock::engine
