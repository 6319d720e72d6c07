#include "kernels/amx.h"

#include "tensor/cpu_features.h"

#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace penstock::kernels {
namespace {

// Their contents take 8 KiB a thread, which Linux keeps only for processes that have asked (kernel documentation, arch/x86/xstate).
bool ask_system() {
#if defined(__linux__) && defined(__x86_64__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

bool has_amx() {
  static const bool has = [] {
    const tensor::CpuFeatures cpu = tensor::cpu_features();
    return cpu.amx_int8 && cpu.amx_bf16 && cpu.avx512_bf16 && cpu.avx512_vnni && ask_system();
  }();
  return has;
}

}  // namespace penstock::kernels
