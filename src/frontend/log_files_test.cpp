#include "frontend/log_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/log.h"
#include "base/temp_dir.h"

namespace penstock::frontend {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::MatchesRegex;

AnsweredRequest http_request(std::string_view target) {
  AnsweredRequest request;
  request.peer = "127.0.0.1:1234";
  request.method = "POST";
  request.target = target;
  request.version = "HTTP/1.1";
  request.status = 200;
  request.took = microseconds(118400);
  request.request_id = "id-1";
  return request;
}

std::string shown(std::string_view target) { return access_line(http_request(target), std::chrono::system_clock::now()); }

TEST(AccessLog, ALineIsTorchServes) {
  const std::string time = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2},[0-9]{3} - ";
  EXPECT_THAT(shown("/predictions/x"), MatchesRegex(time + "/127\\.0\\.0\\.1:1234 \"POST /predictions/x HTTP/1\\.1\" 200 118$"));
  AnsweredRequest grpc = http_request("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions");
  grpc.protocol = Protocol::kGrpc;
  grpc.status = 5;
  EXPECT_THAT(access_line(grpc, std::chrono::system_clock::now()),
              EndsWith(" - /127.0.0.1:1234 \"gRPC /org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions HTTP/2.0\" 5 118"));
}

TEST(AccessLog, NobodyCanForgeALine) {
  EXPECT_THAT(shown("/a\"b\\c\n\x80 d"), HasSubstr("\"POST /a\\x22b\\x5cc\\x0a\\x80\\x20d HTTP/1.1\" 200"));
  EXPECT_LT(shown("/" + std::string(100000, 'a')).size(), 2200u);
}

TEST(AccessLog, SecretsInUrlsAreHidden) {
  EXPECT_THAT(shown("/models?url=https://me:secret@host/m.mar&synchronous=true"), HasSubstr("/models?url=***&synchronous=true HTTP"));
  EXPECT_THAT(shown("/models?a=1&url=https://host/m.mar%3FX-Signature=secret"), HasSubstr("/models?a=1&url=*** HTTP"));
  EXPECT_THAT(shown("/models?url=m.mar&min_worker=1"), HasSubstr("/models?url=m.mar&min_worker=1 HTTP"));
}

TEST(AccessLog, JsonSaysMore) {
  AnsweredRequest request = http_request("/predictions/x?a=\"");
  const RequestTrace trace = begin_trace(parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), true);
  request.trace = &trace;
  const auto json = nlohmann::json::parse(access_json(request, std::chrono::system_clock::now()));
  EXPECT_EQ(json["protocol"], "http");
  EXPECT_EQ(json["method"], "POST");
  EXPECT_EQ(json["path"], "/predictions/x?a=\\x22");
  EXPECT_EQ(json["status"], 200);
  EXPECT_EQ(json["ms"], 118.4);
  EXPECT_EQ(json["request_id"], "id-1");
  EXPECT_EQ(json["trace_id"], "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(json["peer"], "127.0.0.1:1234");
}

TEST(LogFiles, EachHasItsNameAndTheProcesssLogIsAmongThem) {
  const TempDir folder;
  init_logging("test");
  {
    LogFiles files(folder.path() / "logs", folder.path() / "metrics");
    files.write(LogFile::kAccess, "an access");
    files.write(LogFile::kModelMetrics, "a metric");
    spdlog::warn("watch out");
  }
  spdlog::info("too late");
  const auto content = [&](const char* name) { return read_file(folder.path() / name, 1 << 20).value(); };
  EXPECT_EQ(content("logs/access_log.log"), "an access\n");
  EXPECT_EQ(content("metrics/model_metrics.log"), "a metric\n");
  EXPECT_THAT(content("logs/ts_log.log"), MatchesRegex("[0-9-]{10}T[0-9:]{8},[0-9]{3} \\[WARN \\] [0-9]+ penstock\\.test - watch out\n"));
}

}  // namespace
}  // namespace penstock::frontend
