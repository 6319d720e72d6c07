#include "comm/communicator.h"

#include <ATen/ATen.h>

namespace penstock::comm {

Tensor Communicator::reduction_buffer(int64_t bytes, Deadline /*deadline*/) { return at::zeros({bytes}, at::kByte); }

}  // namespace penstock::comm
