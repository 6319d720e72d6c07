# Language level, warnings, sanitizers, compiler cache, linker and job pools.

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# Our own code is held to these; other people's headers are SYSTEM and are not.
add_library(penstock_warnings INTERFACE)
target_compile_options(penstock_warnings INTERFACE -Wall -Wextra -Wpedantic -Werror)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(penstock_warnings INTERFACE -Wthread-safety)
else()
  target_compile_options(penstock_warnings INTERFACE -Wno-restrict)  # gcc 12 sees overlaps in "x" + std::string (bug 105651)
endif()

# gcc 12 moves the cold part of a function away even where it is empty. Such a part's entry in the unwind table then hides the function behind it, and an exception that
# passes there ends the process (tests/commands/unwinding_test.py).
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fno-reorder-blocks-and-partition>)
endif()

if(PENSTOCK_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_compile_options(penstock_warnings INTERFACE -Wno-maybe-uninitialized)  # gcc 12 sees it in its own <regex> (bug 105562)
  endif()
elseif(PENSTOCK_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_compile_options(penstock_warnings INTERFACE -Wno-tsan)  # Boost.Asio's fences, which it does not see; the locks beside them it does
  endif()
elseif(PENSTOCK_SANITIZE)
  message(FATAL_ERROR "PENSTOCK_SANITIZE is '${PENSTOCK_SANITIZE}'; expected 'address', 'thread' or nothing")
endif()

# A compiler cache when there is one, which finds what another clone compiled. Precompiled headers need the sloppiness settings (ccache manual, "Precompiled headers").
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
  endif()
endif()

find_program(LLD ld.lld)
if(LLD)
  add_link_options(-fuse-ld=lld)
endif()

# A LibTorch translation unit takes up to 1.6 GB: as many at once as memory allows.
cmake_host_system_information(RESULT memory_mib QUERY TOTAL_PHYSICAL_MEMORY)
cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)
math(EXPR torch_jobs "${memory_mib} / 2048")
if(torch_jobs LESS 1)
  set(torch_jobs 1)
elseif(torch_jobs GREATER cores)
  set(torch_jobs ${cores})
endif()
set_property(GLOBAL APPEND PROPERTY JOB_POOLS torch_compile=${torch_jobs})
