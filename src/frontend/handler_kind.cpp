#include "frontend/handler_kind.h"

namespace penstock::frontend {

HandlerKind handler_kind(std::string_view handler) {
  if (handler == "llm") return HandlerKind::kText;
  if (handler == "torchscript") return HandlerKind::kTorchscript;
  return handler.ends_with(".so") ? HandlerKind::kLibrary : HandlerKind::kPython;
}

}  // namespace penstock::frontend
