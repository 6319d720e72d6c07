#include "tensor/dtype.h"

#include <c10/core/ScalarType.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace penstock::tensor {
namespace {

TEST(Dtype, EveryNameReadsBackAsTheDtypeItNames) {
  for (const ScalarType dtype : {ScalarType::Float, ScalarType::BFloat16}) {
    EXPECT_EQ(parse_precision(precision_name(dtype)), dtype);
  }
  for (const ScalarType dtype : {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half, ScalarType::Double}) {
    EXPECT_EQ(parse_torch_dtype(torch_dtype_name(dtype)), dtype);
  }
  for (const ScalarType dtype : {ScalarType::Float, ScalarType::BFloat16, ScalarType::Half, ScalarType::Double, ScalarType::Long,
                                 ScalarType::Int, ScalarType::Byte}) {
    EXPECT_EQ(parse_safetensors_dtype(safetensors_dtype_name(dtype)), dtype);
  }
}

TEST(Dtype, UnknownNamesAreNoDtype) {
  EXPECT_FALSE(parse_precision("fp8"));
  EXPECT_FALSE(parse_precision(""));
  EXPECT_FALSE(parse_torch_dtype("int64"));
  EXPECT_FALSE(parse_safetensors_dtype("f32"));
}

TEST(Dtype, ADtypeWithoutANameIsAnErrorThatNamesIt) {
  try {
    (void)precision_name(ScalarType::Long);
    FAIL() << "int64 is no precision";
  } catch (const Error& failed) {
    EXPECT_EQ(failed.code(), Code::kUnimplemented);
    EXPECT_NE(failed.message().find("Long"), std::string::npos) << failed.message();
  }
}

}  // namespace
}  // namespace penstock::tensor
