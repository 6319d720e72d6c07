#pragma once
// How many files and connections this process may hold open.

namespace penstock::cluster {

// Raises the limit (RLIMIT_NOFILE) to what the system allows this process, and answers it. Processes that are started later inherit it.
// Threads: before there are others.
int raise_descriptor_limit();

}  // namespace penstock::cluster
