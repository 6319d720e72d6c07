#include "handler/tensor_handler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/channel.h"

namespace penstock::handler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Answers with its first input, or as the test says, and notes the shapes that it saw.
class ScriptedModel final : public TensorModel {
 public:
  [[nodiscard]] std::vector<std::string> input_names() const override { return {"a", "b"}; }
  Result<std::vector<Tensor>> run(const std::vector<Tensor>& inputs) override {
    (void)shapes.try_put(shown_shape(inputs[0].shape));
    return behave(inputs);
  }
  std::function<Result<std::vector<Tensor>>(const std::vector<Tensor>&)> behave = [](const auto& inputs) { return std::vector<Tensor>{inputs[0]}; };
  Channel<std::string> shapes{64};
};

class Answers final : public AnswerSink {
 public:
  bool push(AnswerEvent event) override {
    const std::string status = event.head && event.head->status != 200 ? fmt::format("{}: ", event.head->status) : "";
    (void)events.try_put(event.failure ? fmt::format("{}: {}", to_string(event.failure->code()), event.failure->message()) : status + event.bytes);
    return true;
  }
  std::string next() { return events.take(Deadline::after(seconds(10))).value_or("nothing within 10 s"); }
  Channel<std::string> events{16};
};

class TensorHandlerTest : public testing::Test {
 protected:
  void make(size_t batch_size, milliseconds delay) { handler = std::make_unique<TensorHandler>(model, options(batch_size, delay)); }
  static TensorHandlerOptions options(size_t batch_size, milliseconds delay) {
    TensorHandlerOptions options;
    options.model = "m";
    options.batch_size = batch_size;
    options.max_batch_delay = delay;
    return options;
  }
  std::shared_ptr<Answers> send(const std::string& body) {
    auto answers = std::make_shared<Answers>();
    auto id = handler->submit({"id", {}, {{"body", "", body}}}, answers);
    if (id) last_id = *id;
    else (void)answers->push({std::nullopt, "", true, id.error()});
    return answers;
  }
  std::string ran() { return model.shapes.take(Deadline::after(seconds(10))).value_or("nothing within 10 s"); }

  ScriptedModel model;
  std::unique_ptr<TensorHandler> handler;
  RequestId last_id = 0;
};

TEST_F(TensorHandlerTest, RequestsRunTogetherAndGetTheirOwnRows) {
  make(3, seconds(100));
  const auto first = send("[[1, 2]]"), second = send("[[3, 4], [5, 6]]"), third = send("[[7, 8]]");
  EXPECT_EQ(ran(), "[4, 2]");
  EXPECT_EQ(first->next(), "[[1, 2]]");
  EXPECT_EQ(second->next(), "[[3, 4], [5, 6]]");
  EXPECT_EQ(third->next(), "[[7, 8]]");
}

TEST_F(TensorHandlerTest, WhatHasAnotherShapeOrTypeRunsByItself) {
  make(2, milliseconds(1));
  const auto a = send("[[1, 2]]"), b = send("[[1, 2, 3]]"), c = send("[[1.5, 2]]"), d = send("7");
  EXPECT_EQ(a->next(), "[[1, 2]]");
  EXPECT_EQ(b->next(), "[[1, 2, 3]]");
  EXPECT_EQ(c->next(), "[[1.5, 2]]");
  EXPECT_EQ(d->next(), "7");
}

TEST_F(TensorHandlerTest, WithoutMemoryTheAnswerIsStatus507) {
  make(1, milliseconds(0));
  model.behave = [](const auto&) { return Error(Code::kResourceExhausted, "CUDA out of memory"); };
  const auto answers = std::make_shared<Answers>();
  ASSERT_TRUE(handler->submit({"id", {}, {{"body", "", "7"}}}, answers).ok());
  EXPECT_EQ(answers->next(), "507: {\n  \"code\": 507,\n  \"type\": \"InternalServerException\",\n  \"message\": \"Out of resources: CUDA out of memory\"\n}\n");
}

TEST_F(TensorHandlerTest, OutputsThatCannotBeCutMakeEachRequestRunAlone) {
  model.behave = [](const auto& inputs) { return std::vector<Tensor>{{"sum", DataType::kInt64, {1}, inputs[0].data.substr(0, 8)}}; };
  make(2, seconds(100));
  const auto first = send("[[1], [2]]"), second = send("[[3], [4]]");
  EXPECT_EQ(first->next(), "[1]");
  EXPECT_EQ(second->next(), "[3]");
  EXPECT_EQ(ran(), "[4, 1]");
  EXPECT_EQ(ran(), "[2, 1]");
}

TEST_F(TensorHandlerTest, OneBadRequestOfABatchFailsAlone) {
  model.behave = [](const std::vector<Tensor>& inputs) -> Result<std::vector<Tensor>> {
    if (inputs[0].data.find('\x63') != std::string::npos) return Error(Code::kInvalidArgument, "99 is not allowed");
    return std::vector<Tensor>{inputs[0]};
  };
  make(2, seconds(100));
  const auto good = send("[1]"), bad = send("[99]");
  EXPECT_EQ(good->next(), "[1]");
  EXPECT_EQ(bad->next(), "invalid argument: 99 is not allowed");
}

TEST_F(TensorHandlerTest, ACancelledRequestThatWaitsNeverRuns) {
  make(2, seconds(100));
  (void)send("[1]");
  handler->cancel(last_id);
  const auto second = send("[2]"), third = send("[3]");
  EXPECT_EQ(second->next(), "[2]");
  EXPECT_EQ(ran(), "[2]");
}

TEST_F(TensorHandlerTest, InputsByNameAreOrderedByTheModel) {
  make(1, milliseconds(0));
  const auto by_name = send(R"({"instances": [{"b": 2, "a": 1}]})");
  EXPECT_EQ(by_name->next(), R"({"predictions": [1]})");
  EXPECT_EQ(send(R"({"instances": [{"b": 2, "c": 1}]})")->next(), "invalid argument: inputs: expected names out of [a, b], or a list of \"inputs\"");
}

TEST_F(TensorHandlerTest, BadInputIsRefusedAtOnceAndADrainingHandlerTakesNothing) {
  make(1, milliseconds(0));
  EXPECT_THAT(send("[1, [2]]")->next(), HasSubstr("invalid argument: input ''"));
  EXPECT_EQ(handler->info().max_concurrent, 2);
  handler->drain();
  EXPECT_THAT(send("[1]")->next(), HasSubstr("unavailable"));
}

}  // namespace
}  // namespace penstock::handler
