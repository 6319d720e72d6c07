#pragma once
// How models write down that they call a tool.
#include <string_view>

namespace penstock::text {

// The first three are what families of models were trained on. The last two are what a constraint makes of a call that the client demands.
enum class ToolFormat {
  kNone,        // calls are not looked for
  kHermes,      // anywhere: <tool_call>{"name": ..., "arguments": {...}}</tool_call>; Hermes, Qwen 2.5 and 3
  kLlama3Json,  // the whole text: {"name": ..., "parameters": {...}}, several separated by ';'; Llama 3
  kMistral,     // anywhere: [TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]; Mistral
  kCallList,    // the whole text: [{"name": ..., "parameters": {...}}, ...]
  kArguments,   // the whole text is the arguments of one known function
};

// The format that a chat template teaches: it must have read it to write calls of earlier turns, or tells the model about it. kNone: it shows none of them.
[[nodiscard]] ToolFormat tool_format_of(std::string_view chat_template);

// Its marks may be special tokens, which are otherwise left out of a text.
[[nodiscard]] constexpr bool has_special_marks(ToolFormat format) { return format == ToolFormat::kHermes || format == ToolFormat::kMistral; }

}  // namespace penstock::text
