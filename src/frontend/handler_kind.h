#pragma once
// What answers a model's requests.
#include <string_view>

namespace penstock::frontend {

enum class HandlerKind {
  kText,         // `llm`: text generation by penstock-worker; the front door parses its requests
  kTorchscript,  // `torchscript`: a torch.jit file, by penstock-worker
  kLibrary,      // `NAME.so`: a shared library in the model's folder, by penstock-handler
  kPython,       // everything else, as in TorchServe: `service.py`, `service:handle`, `image_classifier`
};

// REQUIRES: a name that is not empty.
[[nodiscard]] HandlerKind handler_kind(std::string_view handler);

}  // namespace penstock::frontend
