# layer(NAME [TORCH_FREE] [DEPS folder...] [LIBS library...])
#
# Makes the static library penstock_NAME of src/NAME/*.cpp, and the test program NAME_test of src/NAME/*_test.cpp,
# both found by glob. DEPS are other folders of src/ (or targets), LIBS are other people's libraries.
# Folders that are not TORCH_FREE link LibTorch and share one precompiled header, src/tensor/torch_pch.h.
include(GoogleTest)

function(layer name)
  cmake_parse_arguments(ARG "TORCH_FREE" "" "DEPS;LIBS" ${ARGN})
  set(folder ${CMAKE_SOURCE_DIR}/src/${name})
  file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cpp)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cpp$")
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")

  set(target penstock_${name})
  set(deps)
  foreach(dep IN LISTS ARG_DEPS)
    if(NOT dep MATCHES "^penstock_")
      set(dep penstock_${dep})
    endif()
    list(APPEND deps ${dep})
  endforeach()

  if(sources)
    set(scope PUBLIC)
    add_library(${target} STATIC ${sources})
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:penstock_warnings>)
  else()
    set(scope INTERFACE)
    add_library(${target} INTERFACE)
  endif()
  target_include_directories(${target} ${scope} $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/src> $<INSTALL_INTERFACE:include/penstock>)
  target_compile_features(${target} ${scope} cxx_std_20)
  add_library(Penstock::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_link_libraries(${target} ${scope} ${deps} ${ARG_LIBS})
  if(NOT ARG_TORCH_FREE)
    target_link_libraries(${target} ${scope} ${TORCH_LIBRARIES})
    target_include_directories(${target} SYSTEM ${scope} ${TORCH_INCLUDE_DIRS})
    if(sources)
      torch_precompiled(${target})
    endif()
  endif()

  if(tests AND PENSTOCK_TESTS)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE penstock_warnings ${target} GTest::gtest GTest::gmock GTest::gtest_main)
    target_compile_definitions(${name}_test PRIVATE PENSTOCK_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    if(ARG_TORCH_FREE)
      set(label torch-free)
      target_compile_options(${name}_test PRIVATE $<$<CONFIG:Release>:-O1>)  # a quarter less to wait for; what is tested keeps its own flags
    else()
      set(label torch-local)  # ranks are threads of one process: ThreadSanitizer sees them all
      torch_precompiled(${name}_test)
    endif()
    gtest_discover_tests(${name}_test TEST_PREFIX ${name}/ DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
      PROPERTIES LABELS ${label} TIMEOUT 120)
  endif()
endfunction()

# The one precompiled header: built once in penstock_tensor (libraries) and reused with identical flags.
function(torch_precompiled target)
  set_target_properties(${target} PROPERTIES JOB_POOL_COMPILE torch_compile)
  # Without these two gcc vectorizes neither exp nor sqrt; nothing here reads errno or the floating-point exception flags.
  target_compile_options(${target} PRIVATE -fno-math-errno -fno-trapping-math)
  target_compile_options(${target} PRIVATE -fPIC)  # programs too (CMake would say -fPIE): the header is used only with the flags it was made with
  # -fopenmp comes with penstock_tensor: at::parallel_for is a header, and without it would silently run on one thread.
  if(target STREQUAL penstock_tensor)
    target_precompile_headers(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src/tensor/torch_pch.h)
  else()
    target_precompile_headers(${target} REUSE_FROM penstock_tensor)
  endif()
endfunction()
