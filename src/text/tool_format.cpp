#include "text/tool_format.h"

namespace penstock::text {

ToolFormat tool_format_of(std::string_view chat_template) {
  const auto has = [&](std::string_view part) { return chat_template.find(part) != std::string_view::npos; };
  if (has("<tool_call>")) return has("<function=") ? ToolFormat::kNone : ToolFormat::kHermes;      // Qwen3-Coder's are XML
  if (has("[TOOL_CALLS]")) return has("[ARGS]") ? ToolFormat::kNone : ToolFormat::kMistral;        // newer ones write NAME[ARGS]{...}
  if ((has("<|python_tag|>") || has("ipython")) && has("parameters")) return ToolFormat::kLlama3Json;
  return ToolFormat::kNone;
}

}  // namespace penstock::text
