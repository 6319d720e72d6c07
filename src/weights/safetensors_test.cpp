#include "weights/safetensors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/temp_dir.h"
#include "formats/safetensors_header.h"

namespace penstock::weights {

using formats::SafetensorsHeader;
using formats::TensorEntry;
namespace {

// A safetensors file with this header and so many data bytes.
std::string file_text(const std::string& json, size_t data_bytes) {
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>((json.size() >> (8 * i)) & 0xff);
  return length + json + std::string(data_bytes, '\x01');
}

SafetensorsHeader parse(const std::string& text) {
  return formats::parse_safetensors_header(std::as_bytes(std::span(text.data(), text.size())), "x.safetensors");
}

// The message of the Error that `text` gives, or "" when it is read.
std::string refusal(const std::string& text) {
  try {
    (void)parse(text);
    return "";
  } catch (const Error& failed) {
    EXPECT_EQ(failed.code(), Code::kDataLoss);
    return failed.message();
  }
}

std::vector<NamedTensor> some_tensors() {
  const at::Tensor base = at::arange(24, at::kFloat).reshape({4, 6});
  return {{"a.weight", base},
          {"half", base.to(at::kHalf)},
          {"b", base.to(at::kBFloat16).t()},
          {"scalar", at::scalar_tensor(2.5, at::kDouble)},
          {"bytes", at::arange(3, at::kByte)},
          {"empty", at::empty({0, 7}, at::kFloat)},
          {"ids", at::arange(5, at::kLong)},
          {"small ids", at::arange(5, at::kInt)}};
}

TEST(Safetensors, WhatIsWrittenReadsBackWithNamesShapesDtypesAndMetadata) {
  const TempDir dir;
  write_safetensors(dir.path() / "x", some_tensors(), {{"format", "pt"}});
  const SafetensorsFile file = SafetensorsFile::open(dir.path() / "x");
  EXPECT_EQ(file.names().size(), some_tensors().size());
  EXPECT_EQ(file.metadata().at("format"), "pt");
  for (const auto& [name, tensor] : some_tensors()) {
    const at::Tensor read = file.tensor(name);
    EXPECT_EQ(read.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(read, tensor)) << name;
  }
}

TEST(Safetensors, TheSameTensorsGiveTheSameBytesAndAnAlignedHeader) {
  const TempDir dir;
  write_safetensors(dir.path() / "x", some_tensors());
  write_safetensors(dir.path() / "y", some_tensors());
  const std::string x = read_file(dir.path() / "x", 1 << 20).value();
  EXPECT_EQ(x, read_file(dir.path() / "y", 1 << 20).value());
  EXPECT_EQ(static_cast<unsigned char>(x[0]) % 8, 0);
}

TEST(Safetensors, ATensorOutlivesTheFileItIsAViewOf) {
  const TempDir dir;
  write_safetensors(dir.path() / "x", {{"w", at::full({1 << 16}, 3.0F)}});
  at::Tensor view;
  {
    const SafetensorsFile file = SafetensorsFile::open(dir.path() / "x");
    view = file.tensor("w");
    EXPECT_EQ(view.data_ptr(), file.tensor("w").data_ptr()) << "a view, not a copy";
  }
  EXPECT_EQ(view.sum().item<float>(), 3.0F * (1 << 16));
}

TEST(Safetensors, ATensorAtAnOddAddressIsCopied) {
  const TempDir dir;
  const std::string json = R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  write_file_atomic(dir.path() / "x", file_text(json, 9));
  const at::Tensor w = SafetensorsFile::open(dir.path() / "x").tensor("w");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(w.data_ptr()) % 4, 0U);
  EXPECT_EQ(w.view(at::kInt)[1].item<int>(), 0x01010101);
}

TEST(Safetensors, AnAbsentTensorOrFileIsNamed) {
  const TempDir dir;
  write_safetensors(dir.path() / "x", some_tensors());
  try {
    (void)SafetensorsFile::open(dir.path() / "x").tensor("nowhere");
    FAIL();
  } catch (const Error& failed) {
    EXPECT_EQ(failed.code(), Code::kNotFound);
    EXPECT_NE(failed.message().find("'nowhere'"), std::string::npos);
  }
  EXPECT_THROW((void)SafetensorsFile::open(dir.path() / "y"), Error);
}

TEST(Safetensors, AFailedWriteLeavesNoFile) {
  const TempDir dir;
  EXPECT_THROW(write_safetensors(dir.path() / "x", {{"c", at::zeros({2}, at::kComplexFloat)}}), Error);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

struct BadHeader {
  const char* json;
  size_t data_bytes;
  const char* complaint;
};

TEST(SafetensorsHeader, EveryKindOfBadHeaderIsRefusedWithItsReason) {
  const BadHeader cases[] = {
      {"[]", 0, "starts with an array"},
      {"", 0, "not JSON"},
      {R"({"w":)", 0, "not JSON"},
      {R"({} x)", 0, "not JSON"},
      {R"({"w":3})", 0, "a number"},
      {R"({"w":[[[[[[1]]]]]]})", 0, "an array"},
      {R"({"w":{"dtype":{}}})", 0, "an object"},
      {R"({"w":{"dtype":"F32","shape":[1]}})", 4, "lacks its data_offsets"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "expected 2"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4, "expected 2"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4, "field 'x'"},
      {R"({"w":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4, "unknown dtype 'F33'"},
      {R"({"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "the number -1"},
      {R"({"w":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4, "the number 1.5"},
      {R"({"w":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]}})", 4, "impossible shape"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "takes 8 bytes; its data_offsets give it 4"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "before its begin"},
      {R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4, "truncated"},
      {R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5, "belong to no tensor"},
      {R"({"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"v":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3, "expected 2"},
      {R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"v":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})", 3, "expected 1"},
      {R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2, "listed twice"},
      {R"({"__metadata__":{"a":{}}})", 0, "an object"},
  };
  for (const BadHeader& bad : cases) {
    const std::string found = refusal(file_text(bad.json, bad.data_bytes));
    EXPECT_NE(found.find(bad.complaint), std::string::npos) << bad.json << "\n  gave: '" << found << "'";
    EXPECT_TRUE(found.starts_with("x.safetensors: ")) << found;
  }
}

TEST(SafetensorsHeader, ALengthBeyondTheFileOrTheLimitIsRefused) {
  std::string text = file_text("{}", 0);
  text[1] = 1;
  EXPECT_NE(refusal(text).find("claims 258 bytes, but the file holds 2"), std::string::npos) << refusal(text);
  text[7] = '\x7f';
  EXPECT_NE(refusal(text).find("expected at most 100000000"), std::string::npos) << refusal(text);
}

TEST(SafetensorsHeader, AHundredThousandNestedArraysAreRefusedWithoutExhaustingTheStack) {
  EXPECT_NE(refusal(file_text(R"({"w":{"shape":)" + std::string(100'000, '['), 0)), "");
}

TEST(SafetensorsHeader, EveryTruncationIsRefused) {
  const TempDir dir;
  write_safetensors(dir.path() / "x", some_tensors());
  const std::string whole = read_file(dir.path() / "x", 1 << 20).value();
  EXPECT_EQ(refusal(whole), "");
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_NE(refusal(whole.substr(0, size)), "") << "cut to " << size << " bytes";
}

// Either the flip is noticed, or the file still describes tensors that lie within it.
TEST(SafetensorsHeader, EveryFlippedBitIsRefusedOrStillReadable) {
  const TempDir dir;
  const std::vector<NamedTensor> tensors = {{"a", at::ones({2, 3})}, {"b", at::ones({4}, at::kBFloat16)}};
  write_safetensors(dir.path() / "x", tensors);
  const std::string whole = read_file(dir.path() / "x", 1 << 20).value();
  const size_t header_bytes = 8 + static_cast<unsigned char>(whole[0]);
  int refused = 0;
  for (size_t bit = 0; bit < header_bytes * 8; ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    if (!refusal(flipped).empty()) {
      ++refused;
      continue;
    }
    for (const TensorEntry& tensor : parse(flipped).tensors) {
      EXPECT_LE(tensor.begin, tensor.end);
      EXPECT_LE(tensor.end, flipped.size());
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace penstock::weights
