#include "rpc/http_client.h"

#include <gtest/gtest.h>

#include "rpc/http_router.h"
#include "rpc/http_server.h"

namespace penstock::rpc {
namespace {

TEST(HttpClient, UrlsAreTakenApart) {
  const HttpUrl url = parse_http_url("http://localhost:4318/v1/traces").value();
  EXPECT_EQ(url.host + "|" + url.port + "|" + url.path, "localhost|4318|/v1/traces");
  const HttpUrl six = parse_http_url("http://[::1]:99").value();
  EXPECT_EQ(six.host + "|" + six.port + "|" + six.path, "::1|99|");
  EXPECT_EQ(parse_http_url("http://[::1]/x").value().port, "80");
  EXPECT_EQ(parse_http_url("https://host").error().code(), Code::kUnimplemented);
  for (const char* bad : {"", "host:1", "http://", "http://:80", "http://h:", "http://h:x", "http://u:p@h", "http://h/a b", "http://h:123456"}) {
    EXPECT_EQ(parse_http_url(bad).error().code(), Code::kInvalidArgument) << bad;
  }
}

TEST(HttpClient, PostsAndSaysWhatWentWrong) {
  std::string body;
  HttpServerOptions options;
  options.address.port = 0;
  const auto answer = [&](int status) {
    return [&body, status](const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
      body = request.body;
      reply->send({status, "application/json", "{}", {}});
    };
  };
  const auto hang = [](const HttpRequest&, const std::shared_ptr<HttpReply>&) {};
  HttpUrl url;
  {
    auto server = std::move(HttpServer::start(options, {"test", {{"POST", "/good", "", {}, answer(200)}, {"POST", "/bad", "", {}, answer(503)},
                                                                 {"POST", "/hang", "", {}, hang}}})).value();
    url = parse_http_url(server->address() + "/good").value();
    EXPECT_FALSE(post_json(url, "{\"a\": 1}", Deadline::after(seconds(20))));
    EXPECT_EQ(body, "{\"a\": 1}");
    url.path = "/bad";
    EXPECT_NE(post_json(url, "{}", Deadline::after(seconds(20)))->message().find("has answered 503"), std::string::npos);
    url.path = "/hang";
    EXPECT_EQ(post_json(url, "{}", Deadline::after(milliseconds(50)))->code(), Code::kDeadlineExceeded);
  }
  EXPECT_EQ(post_json(url, "{}", Deadline::after(seconds(20)))->code(), Code::kUnavailable) << "nobody listens there any more";
}

}  // namespace
}  // namespace penstock::rpc
