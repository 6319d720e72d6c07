#pragma once
// What LibTorch says of a failure, as a code. By its text, for the interpreter of torch.jit keeps nothing else of an exception. Torch-free.
#include <string_view>

#include "base/error.h"

namespace penstock::handler {

// kResourceExhausted: there was no memory, of the GPU or the machine; another request may find some. kInternal: CUDA or one of its libraries has
// failed; what was asked later of the same process may fail, too. kInvalidArgument: anything else, which is mostly inputs that do not fit.
[[nodiscard]] Code code_of_torch_failure(std::string_view text);

}  // namespace penstock::handler
