# What `cmake --install` puts where, so that find_package(Penstock) gives Penstock::train and the folders below it, and the two programs.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(folders base config text formats handler plan cluster data tensor comm kernels weights model pipeline train)
list(TRANSFORM folders PREPEND penstock_ OUTPUT_VARIABLE libraries)
install(TARGETS ${libraries} EXPORT Penstock ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS penstock penstock-worker penstock-handler RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${CMAKE_BINARY_DIR}/bin/torchserve DESTINATION ${CMAKE_INSTALL_BINDIR})  # a link to penstock
foreach(folder IN LISTS folders)
  install(DIRECTORY src/${folder} DESTINATION include/penstock FILES_MATCHING PATTERN "*.h" PATTERN "*_test*" EXCLUDE)
endforeach()

install(EXPORT Penstock NAMESPACE Penstock:: FILE PenstockTargets.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Penstock)
configure_file(cmake/PenstockConfig.cmake.in ${CMAKE_BINARY_DIR}/PenstockConfig.cmake @ONLY)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/PenstockConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/PenstockConfig.cmake ${CMAKE_BINARY_DIR}/PenstockConfigVersion.cmake cmake/TextLibraries.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/Penstock)
