#include "rpc/http_forms.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace penstock::rpc {
namespace {

using handler::Part;
using testing::HasSubstr;

constexpr const char* kForm = "multipart/form-data; boundary=B";
constexpr const char* kUrlencoded = "application/x-www-form-urlencoded";

std::string field(const std::string& header, const std::string& bytes) { return "--B\r\n" + header + "\r\n\r\n" + bytes + "\r\n"; }
std::string named(const std::string& name) { return "Content-Disposition: form-data; name=\"" + name + "\""; }

std::string refusal(const std::string& type, const std::string& body) {
  const auto parts = body_parts(type, body);
  if (parts) return "accepted";
  EXPECT_EQ(parts.error().code(), Code::kInvalidArgument);
  return parts.error().message();
}

std::vector<Part> parts_of(const std::string& type, const std::string& body) { return body_parts(type, body).value(); }

TEST(HttpForms, ABodyThatIsNoFormIsOnePartOfItsType) {
  for (const char* type : {"", "application/json", "image/png", "text/plain; charset=utf-8", "multipart/mixed; boundary=B"}) {
    const auto parts = parts_of(type, "--B\r\nbytes");
    ASSERT_EQ(parts.size(), 1u);
    EXPECT_EQ(parts[0].name, "body");
    EXPECT_EQ(parts[0].content_type, type);
    EXPECT_EQ(parts[0].bytes, "--B\r\nbytes");
  }
}

TEST(HttpForms, EachFieldIsAPartOfItsNameAndType) {
  const std::string bytes("\0\r\n--\r\n--A\xFF", 11);
  const auto parts = parts_of(kForm, field(named("data") + "; filename=\"kitten;1.jpg\"\r\nContent-Type: image/jpeg", bytes) +
                                         field("content-disposition: Form-Data; NAME=note", "text") + field(named("empty"), "") + "--B--\r\nafterwards");
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[0].name, "data");
  EXPECT_EQ(parts[0].content_type, "image/jpeg");
  EXPECT_EQ(parts[0].bytes, bytes);
  EXPECT_EQ(parts[1].name, "note");
  EXPECT_EQ(parts[1].content_type, "");
  EXPECT_EQ(parts[1].bytes, "text");
  EXPECT_EQ(parts[2].name, "empty");
  EXPECT_EQ(parts[2].bytes, "");
}

TEST(HttpForms, ReadsWhatTheStandardAllowsAroundBoundaries) {
  EXPECT_EQ(parts_of(kForm, "before\r\n" + field(named("a"), "1") + "--B--").at(0).bytes, "1");
  EXPECT_EQ(parts_of(kForm, "--B \t\r\n" + named("a") + "\r\n\r\n1\r\n--B--").at(0).bytes, "1");
  EXPECT_EQ(parts_of(kForm, "--B\r\n" + named("a") + "\r\n\r\n--B--").at(0).bytes, "") << "a field without a body";
  EXPECT_EQ(parts_of("multipart/form-data; charset=x; boundary=\"a b\"", "--a b\r\n" + named("a") + "\r\n\r\n1\r\n--a b--").at(0).bytes, "1");
  EXPECT_TRUE(parts_of(kForm, "--B--").empty());
}

TEST(HttpForms, NamesMayBeQuoted) {
  EXPECT_EQ(parts_of(kForm, field("Content-Disposition: form-data; name=\"a\\\"b\\\\c\\d\"", "1") + "--B--").at(0).name, "a\"b\\c\\d");
}

TEST(HttpForms, RefusesAFormThatIsNone) {
  const std::string good = field(named("a"), "1");
  EXPECT_THAT(refusal("multipart/form-data", good + "--B--"), HasSubstr("no boundary"));
  EXPECT_THAT(refusal("multipart/form-data; boundary=", good + "--B--"), HasSubstr("no boundary"));
  EXPECT_THAT(refusal("multipart/form-data; boundary=" + std::string(71, 'B'), good), HasSubstr("70 bytes"));
  EXPECT_THAT(refusal("multipart/form-data; boundary=\"B", good), HasSubstr("no boundary"));
  EXPECT_THAT(refusal(kForm, ""), HasSubstr("does not occur"));
  EXPECT_THAT(refusal(kForm, "text"), HasSubstr("does not occur"));
  EXPECT_THAT(refusal(kForm, good), HasSubstr("last boundary is missing"));
  EXPECT_THAT(refusal(kForm, "--B\r\n" + named("a") + "\r\n\r\n1"), HasSubstr("last boundary is missing"));
  EXPECT_THAT(refusal(kForm, "--Bx\r\n" + named("a") + "\r\n\r\n1\r\n--B--"), HasSubstr("end of its line"));
  EXPECT_THAT(refusal(kForm, "--B\r\n" + named("a")), HasSubstr("does not end"));
  EXPECT_THAT(refusal(kForm, field("X: " + std::string(9000, 'x') + "\r\n" + named("a"), "1") + "--B--"), HasSubstr("8192 bytes"));
  EXPECT_THAT(refusal(kForm, field("Content-Type: text/plain", "1") + "--B--"), HasSubstr("no name"));
  EXPECT_THAT(refusal(kForm, field("Content-Disposition: attachment; name=\"a\"", "1") + "--B--"), HasSubstr("form-data; name"));
  EXPECT_THAT(refusal(kForm, field("Content-Disposition: form-data; name=\"a", "1") + "--B--"), HasSubstr("form-data; name"));
  EXPECT_THAT(refusal(kForm, field("Content-Disposition: form-data; name=\"a\" b", "1") + "--B--"), HasSubstr("form-data; name"));
  EXPECT_THAT(refusal(kForm, field("Content-Disposition: form-data; filename=\"a\"", "1") + "--B--"), HasSubstr("form-data; name"));
  EXPECT_THAT(refusal(kForm, field(named("a") + "\r\n" + named("b"), "1") + "--B--"), HasSubstr("once"));
  EXPECT_THAT(refusal(kForm, field("name", "1") + "--B--"), HasSubstr("without ':'"));
  EXPECT_THAT(refusal(kForm, field(named("a") + "\r\nContent-Transfer-Encoding: base64", "MQ==") + "--B--"), HasSubstr("expected binary"));
}

TEST(HttpForms, BoundsTheFields) {
  std::string form, pairs;
  for (size_t i = 0; i < handler::kMaxParts; ++i) {
    form += field(named("a"), "");
    pairs += "a=1&";
  }
  EXPECT_EQ(parts_of(kForm, form + "--B--").size(), handler::kMaxParts);
  EXPECT_EQ(parts_of(kUrlencoded, pairs).size(), handler::kMaxParts);
  EXPECT_THAT(refusal(kForm, form + field(named("a"), "") + "--B--"), HasSubstr("more than 1024 fields"));
  EXPECT_THAT(refusal(kUrlencoded, pairs + "a=1"), HasSubstr("more than 1024 fields"));
}

TEST(HttpForms, UrlencodedFieldsAreParts) {
  const auto parts = parts_of("application/x-www-form-urlencoded; charset=UTF-8", "data=a+b%26%3D&&empty=&alone&data=2");
  ASSERT_EQ(parts.size(), 4u);
  EXPECT_EQ(parts[0].name, "data");
  EXPECT_EQ(parts[0].bytes, "a b&=");
  EXPECT_EQ(parts[1].name, "empty");
  EXPECT_EQ(parts[2].name, "alone");
  EXPECT_EQ(parts[2].bytes, "");
  EXPECT_EQ(parts[3].bytes, "2");
  EXPECT_THAT(refusal(kUrlencoded, "a=%4"), HasSubstr("% escape"));
}

TEST(HttpForms, JsonThatCallsItselfUrlencodedIsABody) {
  for (const char* json : {R"({"prompt": "a=b&c"})", " [1, 2]"}) {
    const auto parts = parts_of(kUrlencoded, json);
    ASSERT_EQ(parts.size(), 1u);
    EXPECT_EQ(parts[0].name, "body");
    EXPECT_EQ(parts[0].bytes, json);
  }
}

// Whatever comes, there is an answer.
TEST(HttpForms, SurvivesFormsThatWereTamperedWith) {
  const std::string good = field(named("data") + "; filename=\"a\\\"b\"\r\nContent-Type: image/jpeg", "12") + field(named("b"), "") + "--B--\r\n";
  std::mt19937 random(7);
  const std::string letters = "\r\n-B\";:=\\ \t\0x";
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text = good;
    for (int change = 0; change < 3; ++change) {
      const size_t at = random() % text.size();
      if (random() % 2 == 0) text.erase(at, 1 + random() % 4);
      else text.insert(at, 1, letters[random() % letters.size()]);
    }
    accepted += body_parts(kForm, text) ? 1 : 0;
    (void)body_parts(text.substr(0, 60), text);
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 20000);
}

}  // namespace
}  // namespace penstock::rpc
