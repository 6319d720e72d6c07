#include "cluster/program_identity.h"

#include <elf.h>
#include <fmt/format.h>
#include <link.h>

#include <cstring>

namespace penstock::cluster {
namespace {

size_t padded(size_t bytes) { return (bytes + 3) / 4 * 4; }

// Notes are a header, a name and a content, the latter two padded to 4 bytes (elf(5)).
bool find_id(const char* notes, size_t size, std::string& id) {
  while (size >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) header;
    std::memcpy(&header, notes, sizeof(header));
    const size_t whole = sizeof(header) + padded(header.n_namesz) + padded(header.n_descsz);
    if (whole > size) return false;
    const char* name = notes + sizeof(header);
    if (header.n_type == NT_GNU_BUILD_ID && header.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0) {
      for (size_t i = 0; i < header.n_descsz; ++i) id += fmt::format("{:02x}", static_cast<unsigned char>(name[4 + i]));
      return true;
    }
    notes += whole;
    size -= whole;
  }
  return false;
}

// The first object is the program itself: 1 ends the search.
int look_at_program(dl_phdr_info* object, size_t /*size*/, void* id) {
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const auto& header = object->dlpi_phdr[i];
    if (header.p_type != PT_NOTE) continue;
    if (find_id(reinterpret_cast<const char*>(object->dlpi_addr + header.p_vaddr), header.p_memsz, *static_cast<std::string*>(id))) break;
  }
  return 1;
}

}  // namespace

std::string program_build_id() {
  std::string id;
  dl_iterate_phdr(look_at_program, &id);
  return id.empty() ? "unknown" : id;
}

}  // namespace penstock::cluster
