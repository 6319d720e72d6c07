#include "rpc/http_cors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::rpc {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

TEST(Cors, SaysNothingUnlessAnOriginIsAllowed) {
  EXPECT_THAT(cors_headers({}, "https://a.example"), IsEmpty());
  EXPECT_THAT(cors_headers({"https://a.example", "PUT", "Authorization"}, "https://b.example"), IsEmpty());
  EXPECT_THAT(cors_headers({"https://a.example", "PUT", "Authorization"}, "https://a.example.evil"), IsEmpty());
  EXPECT_THAT(cors_headers({"https://a.example", "", ""}, "null"), IsEmpty());
  EXPECT_THAT(cors_headers({"https://a.example", "", ""}, ""), IsEmpty());
}

TEST(Cors, NamesTheOriginThatAskedAndNoOther) {
  EXPECT_THAT(cors_headers({"https://a.example , https://b.example", "GET, PUT", "Authorization"}, "https://b.example"),
              ElementsAre(Pair("Access-Control-Allow-Origin", "https://b.example"), Pair("Vary", "Origin"),
                          Pair("Access-Control-Allow-Methods", "GET, PUT"), Pair("Access-Control-Allow-Headers", "Authorization")));
}

TEST(Cors, AStarIsForEverybody) {
  EXPECT_THAT(cors_headers({"*", "", ""}, "https://x.example"), ElementsAre(Pair("Access-Control-Allow-Origin", "*")));
  EXPECT_THAT(cors_headers({"*", "", ""}, ""), ElementsAre(Pair("Access-Control-Allow-Origin", "*")));
}

}  // namespace
}  // namespace penstock::rpc
