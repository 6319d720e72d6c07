#include "config/http_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::config {
namespace {

TEST(HttpAddress, IsTakenApartAndPutTogetherAgain) {
  for (const char* text : {"http://0.0.0.0:80", "https://[::1]:0", "https://localhost:8443", "unix:/run/penstock/http.sock"}) {
    EXPECT_EQ(parse_http_address(text).value().text(), text);
  }
  EXPECT_EQ(parse_http_address("http://[::1]:7").value(), (HttpAddress{"::1", 7}));
  EXPECT_EQ(parse_http_address("https://a:7").value(), (HttpAddress{"a", 7, true}));
  EXPECT_EQ(parse_http_address("unix:/a/b").value().unix_path, "/a/b");
}

TEST(HttpAddress, SaysWhatIsExpected) {
  for (const char* wrong : {"", "127.0.0.1:80", "http://:80", "http://a", "http://a:", "http://a:x", "http://a:70000", "http://a:-1", "http://a:80/", "ftp://a:80",
                            "http://u@a:80", "HTTP://a:80", "unix:", "unix:relative", "unix:/folder/"}) {
    const auto address = parse_http_address(wrong);
    ASSERT_FALSE(address.ok()) << wrong;
    EXPECT_THAT(address.error().message(), testing::HasSubstr("expected http://HOST:PORT, https://HOST:PORT or unix:/PATH")) << wrong;
  }
}

TEST(HttpAddress, KnowsWhoReachesIt) {
  for (const char* host : {"127.0.0.1", "127.8.0.1", "localhost", "::1"}) EXPECT_TRUE(is_loopback(host)) << host;
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "127.evil.example", "example.com", ""}) EXPECT_FALSE(is_loopback(host)) << host;
  EXPECT_TRUE(parse_http_address("unix:/a").value().is_local());
  EXPECT_FALSE(parse_http_address("https://0.0.0.0:1").value().is_local());
}

}  // namespace
}  // namespace penstock::config
