// As a library would be that was compiled against another version of the interface.
#include <cstdint>

extern "C" std::uint32_t penstock_handler_abi() { return 999; }
extern "C" void* penstock_make_handler(const void*) { return nullptr; }
