// A torch.jit file, made here, as the worker runs it.
#include "apps/worker/jit_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/script.h>

#include <cstring>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock {
namespace {

using handler::DataType;
using handler::Tensor;
using testing::ElementsAre;
using testing::HasSubstr;

class JitModelTest : public testing::Test {
 protected:
  // The model whose forward() is this, with a parameter w of shape [2, 1].
  std::unique_ptr<handler::TensorModel> model(const std::string& forward) {
    torch::jit::Module module("Made");
    module.register_parameter("w", at::ones({2, 1}), /*is_buffer=*/false);
    module.define(forward);
    module.save((dir_.path() / "model.pt").string());
    return load_jit_model(dir_.path() / "model.pt").value();
  }
  static Tensor floats(std::vector<int64_t> shape, const std::vector<float>& values) {
    return {"x", DataType::kFp32, std::move(shape), std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float))};
  }
  static std::vector<float> values_of(const Tensor& tensor) {
    std::vector<float> values(tensor.data.size() / sizeof(float));
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    return values;
  }
  TempDir dir_;
};

TEST_F(JitModelTest, ATensorComesBack) {
  const auto sum = model("def forward(self, x):\n  return torch.mm(x, self.w)\n");
  EXPECT_THAT(sum->input_names(), ElementsAre("x"));
  const auto outputs = sum->run({floats({2, 2}, {1, 2, 3, 4})}).value();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_THAT(outputs[0].shape, ElementsAre(2, 1));
  EXPECT_THAT(values_of(outputs[0]), ElementsAre(3, 7));
}

TEST_F(JitModelTest, InputsThatDoNotFitAreNamedWithTypeAndShape) {
  const auto sum = model("def forward(self, x):\n  return torch.mm(x, self.w)\n");
  const auto refused = sum->run({floats({1, 3}, {1, 2, 3})});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.error().message(), HasSubstr("the model does not take (x: FP32 [1, 3]): mat1 and mat2 shapes cannot be multiplied"));
  EXPECT_EQ(sum->run({{"x", DataType::kUint32, {1}, "abcd"}}).error().code(), Code::kInvalidArgument);
}

TEST_F(JitModelTest, OnlyBadInputsAreTheClientsFault) {
  const auto full = model("def forward(self, x):\n  assert False, 'CUDA out of memory. Tried to allocate 20.00 GiB'\n  return x\n");
  EXPECT_EQ(full->run({floats({1}, {2})}).error().code(), Code::kResourceExhausted);
  EXPECT_FALSE(full->broken());
  const auto broken = model("def forward(self, x):\n  assert False, 'CUDA error: device-side assert triggered'\n  return x\n");
  EXPECT_EQ(broken->run({floats({1}, {2})}).error().code(), Code::kInternal);
  EXPECT_TRUE(broken->broken());
}

TEST_F(JitModelTest, TuplesAndDictionariesAreSeveralOutputs) {
  const auto two = model("def forward(self, x):\n  return (x, x + x)\n");
  const auto outputs = two->run({floats({1}, {2})}).value();
  ASSERT_EQ(outputs.size(), 2u);
  EXPECT_EQ(outputs[1].name, "output_1");
  EXPECT_THAT(values_of(outputs[1]), ElementsAre(4));
  const auto named = model("def forward(self, x):\n  return {'double': x + x}\n");
  EXPECT_EQ(named->run({floats({1}, {2})}).value().at(0).name, "double");
}

TEST(JitModel, WhatIsNoTorchJitFileIsRefused) {
  TempDir dir;
  write_file_atomic(dir.path() / "model.pt", "not a model");
  const auto model = load_jit_model(dir.path() / "model.pt");
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.error().code(), Code::kDataLoss);
  EXPECT_THAT(model.error().message(), HasSubstr("is not a torch.jit file"));
}

}  // namespace
}  // namespace penstock
