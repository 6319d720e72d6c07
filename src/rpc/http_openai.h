#pragma once
// OpenAI's routes over HTTP, for models that generate text: models, completions, chat completions; and vLLM's tokenize and detokenize.
#include <vector>

#include "frontend/model_registry.h"
#include "rpc/call_pool.h"
#include "rpc/http_router.h"

namespace penstock::rpc {

// A model is asked for by its name, or by NAME:VERSION.
// `pool`: reads tokenizers and templates, renders conversations and encodes texts, for that takes time. Both must outlive the routes.
// `max_response_bytes`: of the texts of an answer that is sent in one piece.
[[nodiscard]] std::vector<HttpRoute> openai_routes(const frontend::ModelRegistry& registry, CallPool& pool, size_t max_response_bytes);

// What no route gets of these paths is refused in OpenAI's words.
[[nodiscard]] std::vector<HttpRefusals> openai_refusals();

}  // namespace penstock::rpc
