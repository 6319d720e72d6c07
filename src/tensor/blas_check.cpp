#include "tensor/blas_check.h"

#include <ATen/Context.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "base/log.h"

namespace penstock::tensor {
namespace {

// The file that `symbol` came from, links resolved: Debian's libblas.so.3 is a link to the chosen BLAS.
std::string library_of(void* symbol) {
  Dl_info info{};
  if (symbol == nullptr || ::dladdr(symbol, &info) == 0 || info.dli_fname == nullptr) return "";
  std::error_code failed;
  const std::filesystem::path file = std::filesystem::canonical(info.dli_fname, failed);
  return failed ? info.dli_fname : file.string();
}

// The library that holds sgemm, and what it links. Not the whole process: an OpenBLAS that came in with LAPACK's routines
// may stand beside a reference BLAS that multiplies the matrices.
class BlasLibrary {
 public:
  explicit BlasLibrary(const std::string& file)
      : handle_(file.empty() ? nullptr : ::dlopen(file.c_str(), RTLD_LAZY | RTLD_NOLOAD)) {}
  ~BlasLibrary() {
    if (handle_ != nullptr) ::dlclose(handle_);
  }
  BlasLibrary(const BlasLibrary&) = delete;
  BlasLibrary& operator=(const BlasLibrary&) = delete;
  [[nodiscard]] void* symbol(const char* name) const { return handle_ == nullptr ? nullptr : ::dlsym(handle_, name); }

 private:
  void* handle_;
};

BlasThreads openblas_threads(const BlasLibrary& library) {
  auto* get_parallel = reinterpret_cast<int (*)()>(library.symbol("openblas_get_parallel"));
  if (get_parallel == nullptr) return BlasThreads::kUnknown;
  switch (get_parallel()) {  // OPENBLAS_SEQUENTIAL, _THREAD, _OPENMP of its cblas.h
    case 0: return BlasThreads::kNone;
    case 1: return BlasThreads::kPthread;
    case 2: return BlasThreads::kOpenMp;
    default: return BlasThreads::kUnknown;
  }
}

constexpr std::string_view kHowToInstall =
    "install the package libopenblas0-openmp and, if others are installed too, choose it: "
    "update-alternatives --config libblas.so.3-x86_64-linux-gnu";

}  // namespace

BlasInfo detect_blas() {
  BlasInfo blas;
  blas.library = library_of(::dlsym(RTLD_DEFAULT, "sgemm_"));
  const BlasLibrary library(blas.library);
  if (at::globalContext().hasMKL() || library.symbol("mkl_get_version") != nullptr) {
    blas.kind = BlasKind::kMkl;
  } else if (auto* corename = reinterpret_cast<char* (*)()>(library.symbol("openblas_get_corename"))) {
    blas.kind = BlasKind::kOpenBlas;
    blas.kernels = corename();
    blas.threads = openblas_threads(library);
  } else if (library.symbol("bli_info_get_version_str") != nullptr) {
    blas.kind = BlasKind::kBlis;
  } else if (library.symbol("ATL_buildinfo") != nullptr) {
    blas.kind = BlasKind::kAtlas;
  } else if (std::filesystem::path(blas.library).filename().string().starts_with("libblas")) {
    blas.kind = BlasKind::kReference;  // Netlib's is the one library that is only called libblas
  }
  return blas;
}

std::string describe(const BlasInfo& blas) {
  switch (blas.kind) {
    case BlasKind::kReference: return "the reference BLAS";
    case BlasKind::kMkl: return "MKL";
    case BlasKind::kBlis: return "BLIS";
    case BlasKind::kAtlas: return "ATLAS";
    case BlasKind::kUnknown: return "an unknown BLAS";
    case BlasKind::kOpenBlas: break;
  }
  const char* threads = blas.threads == BlasThreads::kOpenMp    ? "OpenMP threads"
                        : blas.threads == BlasThreads::kPthread ? "threads of its own"
                        : blas.threads == BlasThreads::kNone    ? "no threads"
                                                                : "unknown threads";
  return fmt::format("OpenBLAS ({} kernels, {})", blas.kernels, threads);
}

std::optional<std::string> blas_warning(const BlasInfo& blas) {
  if (blas.kind == BlasKind::kReference) {
    return fmt::format("LibTorch computes with the reference BLAS ({}), about 50 times slower than an optimized one: {}", blas.library,
                       kHowToInstall);
  }
  if (blas.kind == BlasKind::kOpenBlas && blas.threads == BlasThreads::kPthread) {
    return fmt::format(
        "OpenBLAS ({}) has threads of its own beside LibTorch's OpenMP threads; they take each other's cores and a training step takes "
        "about twice as long: {}",
        blas.library, kHowToInstall);
  }
  if (blas.kind == BlasKind::kOpenBlas && blas.threads == BlasThreads::kNone) {
    return fmt::format("OpenBLAS ({}) uses one core only: {}", blas.library, kHowToInstall);
  }
  return std::nullopt;
}

std::optional<std::string> better_openblas_kernels(const BlasInfo& blas, const CpuFeatures& cpu) {
  if (blas.kind != BlasKind::kOpenBlas) return std::nullopt;
  for (const std::string_view good : {"Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids"}) {
    if (blas.kernels == good) return std::nullopt;
  }
  if (cpu.avx512) return "SkylakeX";
  if (cpu.avx2) return "Haswell";
  return std::nullopt;
}

void reexec_with_better_blas_kernels(char** argv) {
  constexpr const char* kVariable = "OPENBLAS_CORETYPE";
  if (std::getenv(kVariable) != nullptr) return;  // the user's choice, or ours of a moment ago
  const BlasInfo blas = detect_blas();
  const std::optional<std::string> kernels = better_openblas_kernels(blas, cpu_features());
  if (!kernels) return;
  ::setenv(kVariable, kernels->c_str(), 1);
  ::execv("/proc/self/exe", argv);
  ::unsetenv(kVariable);
  spdlog::warn("OpenBLAS chose its {} kernels for this CPU, several times slower than {}; set {}={} to change that", blas.kernels, *kernels,
               kVariable, *kernels);
}

}  // namespace penstock::tensor
