#include "rpc/http_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace penstock::rpc {
namespace {

using testing::HasSubstr;

// What was answered.
class RecordedReply final : public HttpReply {
 public:
  void send(HttpResponse sent) override { response = std::move(sent); }
  bool can_stream() const override { return false; }
  void begin_stream(HttpResponse) override {}
  bool chunk(std::string) override { return false; }
  void end_stream(const std::optional<Error>&) override {}
  void when_gone(std::function<void()>) override {}
  HttpResponse response;
};

HttpRoute echo(const std::string& method, const std::string& pattern) {
  return {method, pattern, "echo", {"limit"}, [pattern](const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
            std::string text = pattern;
            for (const auto& [name, value] : request.parameters) text += fmt::format(" {}={}", name, value);
            reply->send({200, "text/plain", text, {}});
          }};
}

class HttpRouterTest : public testing::Test {
 protected:
  HttpResponse answer(const std::string& method, const std::string& path) {
    const auto reply = std::make_shared<RecordedReply>();
    HttpRequest request;
    request.method = method;
    request.path = path;
    router.handle(request, reply);
    return reply->response;
  }
  const HttpRouter router{"test", {echo("*", "/ping"), echo("GET", "/models"), echo("GET", "/models/{name}"), echo("PUT", "/models/{name}/{version}"),
                                   echo("*", "/predictions/{name}/{rest...}"), echo("POST", "/v1/{name}:predict")}};
};

TEST_F(HttpRouterTest, ARestTakesAllThatIsLeft) {
  EXPECT_EQ(answer("GET", "/predictions/m/v1/chat%20s/x").body, "/predictions/{name}/{rest...} name=m rest=v1/chat s/x");
  EXPECT_EQ(answer("GET", "/predictions/m/1.0").body, "/predictions/{name}/{rest...} name=m rest=1.0");
  EXPECT_EQ(answer("GET", "/predictions/m").status, 404);
  EXPECT_EQ(answer("GET", "/predictions/m/").status, 404);
  EXPECT_EQ(answer("GET", "/predictions/m/a/%zz").status, 400);
  EXPECT_THAT(router.openapi(), HasSubstr("\"name\": \"rest\""));
  EXPECT_THAT(router.openapi(), HasSubstr("\"/predictions/{name}/{rest}\""));
}

TEST(HttpRouter, RefusesWhatIsBelowAPrefixInItsOwnWords) {
  const HttpRefusals own{"/v1/", [](int status, std::string_view message) { return HttpResponse{status, "text/plain", std::string(message), {}}; },
                         [](const Error&) { return HttpResponse{401, "text/plain", "", {}}; }};
  const HttpRouter router("test", {echo("GET", "/v1/models"), echo("PUT", "/v1/models"), echo("GET", "/models")}, {own});
  const auto answer = [&](const std::string& method, const std::string& path) {
    const auto reply = std::make_shared<RecordedReply>();
    HttpRequest request;
    request.method = method;
    request.path = path;
    router.handle(request, reply);
    return reply->response;
  };
  EXPECT_EQ(answer("GET", "/v1/models").status, 200);
  EXPECT_EQ(answer("GET", "/v1/nothing").status, 404);
  EXPECT_THAT(answer("GET", "/v1/nothing").body, HasSubstr("there is no path /v1/nothing"));
  EXPECT_EQ(answer("POST", "/v1/models").body, "POST is not allowed here; expected GET, PUT");
  EXPECT_EQ(answer("POST", "/v1/models").headers, (std::vector<std::pair<std::string, std::string>>{{"Allow", "GET, PUT"}}));
  EXPECT_EQ(answer("POST", "/models").headers, (std::vector<std::pair<std::string, std::string>>{{"Allow", "GET"}}));
  EXPECT_THAT(answer("POST", "/models").body, HasSubstr("MethodNotAllowedException"));
  EXPECT_THAT(answer("GET", "/nothing").body, HasSubstr("ResourceNotFoundException"));
  EXPECT_EQ(router.refusal(413, "TooLarge", "/v1/models", "too long").body, "too long");
  EXPECT_THAT(router.refusal(413, "TooLarge", "/v2", "too long").body, HasSubstr("TooLarge"));
  EXPECT_EQ(router.lock("GET", "/v1/nothing").refuse(Error(Code::kPermissionDenied, "")).status, 401);
  EXPECT_EQ(router.lock("GET", "/nothing").refuse(Error(Code::kPermissionDenied, "")).status, 400);
}

TEST_F(HttpRouterTest, FindsTheRouteAndItsParameters) {
  EXPECT_EQ(answer("DELETE", "/ping").body, "/ping");
  EXPECT_EQ(answer("GET", "/models").body, "/models");
  EXPECT_EQ(answer("GET", "/models/").body, "/models") << "one slash at the end does no harm";
  EXPECT_EQ(answer("GET", "/models/a%20b").body, "/models/{name} name=a b");
  EXPECT_EQ(answer("PUT", "/models/a/1.0").body, "/models/{name}/{version} name=a version=1.0");
}

TEST_F(HttpRouterTest, AParameterMayBeFollowedByText) {
  EXPECT_EQ(answer("POST", "/v1/a.b:predict").body, "/v1/{name}:predict name=a.b");
  EXPECT_EQ(answer("POST", "/v1/:predict").status, 404);
  EXPECT_EQ(answer("POST", "/v1/a").status, 404);
}

TEST_F(HttpRouterTest, AnEncodedSlashDoesNotMakeAnotherPart) { EXPECT_EQ(answer("GET", "/models/a%2Fb").body, "/models/{name} name=a/b"); }

TEST_F(HttpRouterTest, TellsAnUnknownPathFromAnUnknownMethod) {
  EXPECT_EQ(answer("GET", "/nothing").status, 404);
  EXPECT_EQ(answer("GET", "/models//").status, 404);
  EXPECT_EQ(answer("GET", "//models").status, 404);
  EXPECT_EQ(answer("GET", "/").status, 405) << "OPTIONS describes the API";
  EXPECT_EQ(answer("POST", "/models").status, 405);
  EXPECT_EQ(answer("GET", "/models/%zz").status, 400);
  EXPECT_EQ(answer("GET", "/models/%00").status, 400);
  EXPECT_THAT(answer("POST", "/models").body, HasSubstr("\"type\": \"MethodNotAllowedException\""));
}

TEST(HttpRouterOrder, ARouteThatBeginsWithAParameterTakesNothingFromTheOthers) {
  const auto route = [](const char* method, const char* pattern, frontend::KeySet keys) { return HttpRoute{method, pattern, "", {}, {}, keys}; };
  const HttpRouter router("test", {route("*", "/{name}/predict", 1), route("*", "/{name}/{version}/predict", 1), route("GET", "/models/{name}", 2),
                                   route("PUT", "/models/{name}/{version}", 2), route("GET", "/v2/models/{name}", 4)});
  EXPECT_EQ(router.lock("GET", "/models/predict").keys, 2u) << "a model called predict";
  EXPECT_EQ(router.lock("PUT", "/models/m/predict").keys, 2u) << "a version called predict";
  EXPECT_EQ(router.lock("GET", "/v2/models/predict").keys, 4u);
  EXPECT_EQ(router.lock("POST", "/models/predict").keys, 1u) << "a model called models";
  EXPECT_EQ(router.lock("POST", "/m/1.0/predict").keys, 1u);
}

TEST(HttpRouterOrder, ARouteMayRefuseInItsOwnWords) {
  HttpRoute own{"POST", "/own", "", {}, {}};
  own.refuse = [](const Error&) { return HttpResponse{401, "", "", {}}; };
  const HttpRouter router("test", {own, {"GET", "/other", "", {}, {}}});
  const Error wrong(Code::kPermissionDenied, "wrong token");
  EXPECT_EQ(router.lock("POST", "/own").refuse(wrong).status, 401);
  EXPECT_EQ(router.lock("GET", "/own").refuse(wrong).status, 401) << "another method";
  EXPECT_EQ(router.lock("GET", "/other").refuse(wrong).status, 400);
  EXPECT_EQ(router.lock("GET", "/nothing").refuse(wrong).status, 400);
}

TEST_F(HttpRouterTest, DescribesItsOwnTable) {
  const auto json = nlohmann::json::parse(answer("GET", "/api-description").body);
  EXPECT_EQ(json["paths"].size(), 8u);
  EXPECT_EQ(json["paths"]["/models/{name}"]["get"]["parameters"].size(), 2u);
  EXPECT_TRUE(json["paths"]["/ping"].contains("post"));
}

TEST(HttpErrors, HaveTorchServesForm) {
  const HttpResponse full = error_response(Error(Code::kResourceExhausted, "full"));
  EXPECT_EQ(full.status, 429);
  EXPECT_EQ(full.headers.at(0).first, "Retry-After");
  EXPECT_EQ(nlohmann::json::parse(full.body), nlohmann::json({{"code", 429}, {"type", "ServiceUnavailableException"}, {"message", "full"}}));
  EXPECT_EQ(error_response(Error(Code::kNotFound, "Model version: 2 does not exist")).status, 404);
  EXPECT_THAT(error_response(Error(Code::kInvalidArgument, "found \xff")).body, HasSubstr("\"code\": 400")) << "not UTF-8, answered all the same";
}

TEST(Urls, AreDecoded) {
  EXPECT_EQ(decode_url("a+b%2fc", true), "a b/c");
  EXPECT_EQ(decode_url("a+b", false), "a+b");
  for (const char* broken : {"%", "%4", "%g0", "a%0"}) EXPECT_EQ(decode_url(broken, true), std::nullopt) << broken;
}

}  // namespace
}  // namespace penstock::rpc
