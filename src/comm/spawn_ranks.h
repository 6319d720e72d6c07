#pragma once
// Runs a group whose ranks are threads of this process.
#include <functional>

#include "comm/communicator.h"

namespace penstock::comm {

// Calls body(rank's communicator) in `size` threads and returns when all have ended. When a rank throws, all waits of the others throw an Error
// kUnavailable that names it, and what it threw is thrown here.
void spawn_ranks(int size, const std::function<void(Communicator&)>& body);

}  // namespace penstock::comm
