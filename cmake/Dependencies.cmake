# Every library that Penstock uses. What each is for, and its Debian package, stands in docs/dependencies.md.

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(ZLIB REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
include(TextLibraries)  # pcre2::pcre2, utf8proc::utf8proc
find_package(Boost REQUIRED)  # headers only
find_package(OpenSSL REQUIRED)
find_package(LibArchive REQUIRED)
find_package(CURL REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC REQUIRED)
if(PENSTOCK_TESTS)
  find_package(GTest REQUIRED)
endif()

if(PENSTOCK_TORCH)
  find_package(Torch REQUIRED)
  message(STATUS "LibTorch ${Torch_VERSION}")
  # The libtorch.so of PyTorch's wheels exports parts of an older std::filesystem that crash when they are called: the real ones must be found first.
  list(PREPEND TORCH_LIBRARIES stdc++)
  # LibTorch 2.x ships headers of a newer fmt than the one that we and spdlog link: ours must be found first.
  foreach(folder IN LISTS TORCH_INCLUDE_DIRS)
    if(EXISTS ${folder}/fmt AND NOT folder STREQUAL "/usr/include")
      get_target_property(fmt_include fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
      file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fmt_first)
      file(CREATE_LINK ${fmt_include}/fmt ${CMAKE_BINARY_DIR}/fmt_first/fmt SYMBOLIC)
      list(PREPEND TORCH_INCLUDE_DIRS $<BUILD_INTERFACE:${CMAKE_BINARY_DIR}/fmt_first>)
      break()
    endif()
  endforeach()
  find_package(OpenMP REQUIRED)
  find_path(DNNL_INCLUDE_DIR dnnl.h REQUIRED)
  find_library(DNNL_LIBRARY dnnl REQUIRED)
  add_library(DNNL::dnnl UNKNOWN IMPORTED)
  set_target_properties(DNNL::dnnl PROPERTIES IMPORTED_LOCATION ${DNNL_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})
  include(Cuda)  # whether our own CUDA kernels are built
endif()
