# find_package(lupe): the target lupe::lupe, <lupe.h> and liblupe.so. It needs nothing but libc.
include(${CMAKE_CURRENT_LIST_DIR}/lupeTargets.cmake)
