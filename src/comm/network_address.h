#pragma once
// Which of this machine's addresses its peers should use. Torch-free.
#include <string>

#include "base/clock.h"

namespace penstock::comm {

// The address that packets of this machine towards `host` come from, e.g. "10.0.0.7", or "127.0.0.1" when `host` is this machine by a
// loopback name. Nothing is sent. Throws Error kInvalidArgument (host unknown) or kUnavailable (no route to it).
[[nodiscard]] std::string local_address_towards(const std::string& host, int port);

enum class Listener { kPresent, kAbsent, kUnknown };

// Connects to a TCP port, and disconnects. kAbsent: the machine says that nobody listens; kUnknown: it has not answered by the deadline, or
// cannot be found.
[[nodiscard]] Listener probe_listener(const std::string& host, int port, Deadline deadline);

// "127.…" or "::1".
[[nodiscard]] bool is_loopback_address(const std::string& address);

// Whether this machine has a network interface of that name, e.g. "eth1".
[[nodiscard]] bool has_interface(const std::string& name);

// The names of this machine's interfaces: "lo, eth0".
[[nodiscard]] std::string list_interfaces();

// Which process of this machine listens on a TCP port: "process 4711 (python3)"; "another process" when it cannot be found out.
[[nodiscard]] std::string describe_listener(int port);

// A TCP port of the loopback address that nobody listens on at the moment.
[[nodiscard]] int find_free_port();

}  // namespace penstock::comm
