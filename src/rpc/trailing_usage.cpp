#include "rpc/trailing_usage.h"

#include <grpcpp/grpcpp.h>

#include <charconv>
#include <cmath>
#include <string>

namespace penstock::rpc {
namespace {

constexpr const char* kReason = "penstock-finish-reason";
constexpr const char* kPromptTokens = "penstock-prompt-tokens";
constexpr const char* kCompletionTokens = "penstock-completion-tokens";
constexpr const char* kMedianStep = "penstock-median-step-us";

}  // namespace

void add_trailing_usage(grpc::CallbackServerContext& context, const frontend::FinishedInfo& info) {
  context.AddTrailingMetadata(kReason, info.reason);
  context.AddTrailingMetadata(kPromptTokens, std::to_string(info.prompt_tokens));
  context.AddTrailingMetadata(kCompletionTokens, std::to_string(info.completion_tokens));
  context.AddTrailingMetadata(kMedianStep, std::to_string(std::lround(info.median_step_ms * 1000)));
}

std::optional<frontend::FinishedInfo> read_trailing_usage(const grpc::ClientContext& context) {
  const auto& metadata = context.GetServerTrailingMetadata();
  const auto number = [&](const char* key, int& value) {
    const auto found = metadata.find(key);
    if (found == metadata.end()) return false;
    const auto [end, failed] = std::from_chars(found->second.begin(), found->second.end(), value);
    return failed == std::errc() && end == found->second.end();
  };
  frontend::FinishedInfo info;
  if (!number(kPromptTokens, info.prompt_tokens) || !number(kCompletionTokens, info.completion_tokens)) return std::nullopt;
  if (int step_us = 0; number(kMedianStep, step_us)) info.median_step_ms = step_us / 1000.0;
  if (const auto reason = metadata.find(kReason); reason != metadata.end()) info.reason.assign(reason->second.begin(), reason->second.end());
  return info;
}

}  // namespace penstock::rpc
