# Our own CUDA kernels, src/kernels/cuda: built where LibTorch has CUDA and there is a CUDA compiler; otherwise LibTorch's operations serve.
#
#   PENSTOCK_CUDA_KERNELS      ON or OFF; where it is not given, ON if possible. ON where it is not possible is an error.
#   CMAKE_CUDA_COMPILER        the compiler, where CMake does not find nvcc itself (CUDACXX in the environment does the same)
#   CMAKE_CUDA_ARCHITECTURES   the GPUs to compile for; a GPU newer than all of them compiles the kernels when they are first used
#
# The files with kernels use nothing of LibTorch. They are an object library, so that our flags for C++ do not reach nvcc.

# LibTorch has CUDA if its configuration names torch_cuda, or if the library lies beside the others.
set(torch_cuda FALSE)
foreach(library IN LISTS TORCH_LIBRARIES)
  if(library MATCHES "torch_cuda")
    set(torch_cuda TRUE)
  elseif(EXISTS "${library}")
    get_filename_component(folder "${library}" DIRECTORY)
    list(APPEND torch_folders ${folder})
  endif()
endforeach()
if(TARGET torch_cuda)
  set(torch_cuda TRUE)
elseif(torch_folders)
  find_library(PENSTOCK_TORCH_CUDA torch_cuda PATHS ${torch_folders} NO_DEFAULT_PATH)
  if(PENSTOCK_TORCH_CUDA)
    set(torch_cuda TRUE)
  endif()
endif()
if(torch_cuda)
  include(CheckLanguage)
  check_language(CUDA)
endif()

set(possible OFF)
if(NOT torch_cuda)
  set(reason "this LibTorch has no CUDA")
elseif(NOT CMAKE_CUDA_COMPILER)
  set(reason "there is no CUDA compiler (-DCMAKE_CUDA_COMPILER=/path/to/nvcc)")
else()
  set(possible ON)
endif()
option(PENSTOCK_CUDA_KERNELS "Build our own CUDA kernels (needs LibTorch with CUDA, and nvcc)" ${possible})
if(PENSTOCK_CUDA_KERNELS AND NOT possible)
  message(FATAL_ERROR "PENSTOCK_CUDA_KERNELS is ON, but ${reason}; without the option, LibTorch's operations serve")
elseif(NOT PENSTOCK_CUDA_KERNELS AND possible)
  set(reason "PENSTOCK_CUDA_KERNELS is OFF")
endif()

if(PENSTOCK_CUDA_KERNELS)
  set(asked ${CMAKE_CUDA_ARCHITECTURES})  # LibTorch's own configuration says OFF, and gives flags to its own targets instead
  if(NOT asked)
    set(CMAKE_CUDA_ARCHITECTURES 75)      # every compiler from CUDA 10 to 13 knows it; this is for CMake's own check only
  endif()
  enable_language(CUDA)
  if(NOT asked)
    set(CMAKE_CUDA_ARCHITECTURES 75 80)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 11.8)
      list(APPEND CMAKE_CUDA_ARCHITECTURES 90)
    endif()
  endif()
  # The run-time library inside the programs: LibTorch brings its own, and both use the same contexts and streams of the driver.
  find_library(PENSTOCK_CUDART NAMES cudart_static REQUIRED
    HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} ${CMAKE_CUDA_HOST_IMPLICIT_LINK_DIRECTORIES} ENV LIBRARY_PATH)
  message(STATUS "CUDA kernels: our own, by nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
else()
  message(STATUS "CUDA kernels: LibTorch's only; ${reason}")
endif()

# To penstock_kernels: the kernels, or what says that there are none.
function(add_cuda_kernels target)
  set(folder ${CMAKE_SOURCE_DIR}/src/kernels/cuda)
  target_sources(${target} PRIVATE ${folder}/step_tiles.cpp)
  if(NOT PENSTOCK_CUDA_KERNELS)
    target_sources(${target} PRIVATE ${folder}/not_built.cpp)
    return()
  endif()
  file(GLOB kernels CONFIGURE_DEPENDS ${folder}/*.cu)
  add_library(penstock_cuda_kernels OBJECT ${kernels})
  set_target_properties(penstock_cuda_kernels PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  target_include_directories(penstock_cuda_kernels PRIVATE ${CMAKE_SOURCE_DIR}/src)
  target_sources(${target} PRIVATE ${folder}/cuda_kernels.cpp ${folder}/paged_attention.cpp $<TARGET_OBJECTS:penstock_cuda_kernels>)
  target_include_directories(${target} SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_link_libraries(${target} PUBLIC ${PENSTOCK_CUDART} Threads::Threads ${CMAKE_DL_LIBS} rt)
endfunction()
