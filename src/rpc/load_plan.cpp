#include "rpc/load_plan.h"

#include <climits>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "base/utf8.h"

namespace penstock::rpc {
namespace {

// Line `number` of the file, which is not empty.
Result<LoadPrompt> read_line(std::string_view line, const std::string& name, size_t number, int max_tokens) {
  const auto wrong = [&](std::string_view what) { return error(Code::kInvalidArgument, "{}:{}: {}", name, number, what); };
  if (find_invalid_utf8(line) != std::string_view::npos) return wrong("expected UTF-8, found other bytes");
  if (line.front() != '{') return LoadPrompt{std::string(line), {}, max_tokens};
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.contains("prompt") || !json["prompt"].is_string()) return wrong("expected a JSON object with a text \"prompt\"");
  LoadPrompt prompt{json["prompt"].get<std::string>(), {}, max_tokens};
  if (const auto own = json.find("max_tokens"); own != json.end()) {
    if (!own->is_number_integer() || *own < 1 || *own > INT_MAX) return wrong("\"max_tokens\": expected an integer >= 1, found " + own->dump());
    prompt.max_tokens = own->get<int>();
  }
  return prompt;
}

}  // namespace

std::vector<LoadPrompt> random_prompts(size_t count, int tokens, int vocabulary, int max_tokens, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<LoadPrompt> prompts(count);
  for (LoadPrompt& prompt : prompts) {
    prompt.max_tokens = max_tokens;
    for (int i = 0; i < tokens; ++i) prompt.ids.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(vocabulary)));
  }
  return prompts;
}

Result<std::vector<LoadPrompt>> prompts_of_file(std::string_view content, const std::string& name, size_t count, int max_tokens) {
  std::vector<LoadPrompt> lines;
  size_t number = 0;
  while (!content.empty()) {
    ++number;
    const size_t end = std::min(content.find('\n'), content.size());
    std::string_view line = content.substr(0, end);
    content.remove_prefix(std::min(end + 1, content.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) continue;
    auto prompt = read_line(line, name, number, max_tokens);
    if (!prompt) return prompt.error();
    lines.push_back(std::move(*prompt));
  }
  if (lines.empty()) return error(Code::kInvalidArgument, "{}: expected a prompt on each line, found none", name);
  std::vector<LoadPrompt> prompts;
  for (size_t i = 0; i < count; ++i) prompts.push_back(lines[i % lines.size()]);
  return prompts;
}

std::vector<double> arrival_seconds(size_t count, double rate, uint64_t seed) {
  std::vector<double> times(count, 0.0);
  if (rate <= 0) return times;
  std::mt19937_64 random(seed);
  double now = 0;
  for (double& time : times) {
    time = now;  // the first one at once
    const double uniform = static_cast<double>(random() >> 11) * 0x1p-53;  // [0, 1); the library's distributions differ between systems
    now += -std::log1p(-uniform) / rate;
  }
  return times;
}

}  // namespace penstock::rpc
