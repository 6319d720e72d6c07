#pragma once
// A chat completion as the prompt that its model was trained on.
#include <string>

#include "base/error.h"
#include "text/chat_template.h"
#include "text/openai_request.h"
#include "text/tokenizer.h"

namespace penstock::text {

// The prompt of a chat, to be encoded with `parse_special_tokens` and without `add_special_tokens`: the special tokens are the template's own.
// Those that the client wrote into a message, a tool or a variable are guarded (Tokenizer::guarded) and reach the model as plain text.
// Errors: those of ChatTemplate::render(); kInvalidArgument when the prompt is empty or longer than 1 MiB.
[[nodiscard]] Result<std::string> render_chat_prompt(const ChatTemplate& chat_template, const Tokenizer& tokenizer, const OpenAiCall& call);

}  // namespace penstock::text
