# programs.cmake -- one C or C++ file is one program; spec/fixtures and bench are built by this.
#
# What a file needs stands in its first twelve lines, in comments of this form (all optional):
#   // link: jemalloc pthread dl        libraries
#   // flags: -O0 -static               compiler and linker flags, after the build type's
#   // sources: core/wire/*.c           files of this project that become part of it
# and its name says what it is:
#   NAME.c, NAME.cc    a program, NAME
#   NAME_plugin.c      a module to dlopen, NAME_plugin.so
#   fuzz_NAME.c        a libFuzzer program; only where clang is installed (clang builds it, its sources too), and the
#                      same in every build
#   NAME_stress.c      a program, and a second one under ThreadSanitizer, tsan/NAME_stress, which ./dev test
#                      runs once for every line "// run: ARGUMENTS", or once without arguments
# Programs are built without sanitizers, in every build: they are what lupe profiles, and jemalloc and
# asan cannot share a process. Those with `sources` are ours to check and keep the build's sanitizers.

set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g")

function(lupe_read_needs file)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  set(found_link "")
  set(found_flags "")
  set(found_sources "")
  file(STRINGS ${file} lines LIMIT_COUNT 12)
  foreach(line IN LISTS lines)
    if(line MATCHES "^// (link|flags|sources): *(.*)$")
      separate_arguments(values UNIX_COMMAND "${CMAKE_MATCH_2}")
      set(found_${CMAKE_MATCH_1} ${values})
    endif()
  endforeach()
  if(found_sources)
    list(TRANSFORM found_sources PREPEND ${CMAKE_SOURCE_DIR}/)
    file(GLOB found_sources CONFIGURE_DEPENDS ${found_sources})
  endif()
  set(needs_link ${found_link} PARENT_SCOPE)
  set(needs_flags ${found_flags} PARENT_SCOPE)
  set(needs_sources ${found_sources} PARENT_SCOPE)
endfunction()

# A program built by a compiler and flags of its own, beside the build's.
function(lupe_add_by_hand target output compiler flags)
  list(TRANSFORM needs_link PREPEND -l OUTPUT_VARIABLE libraries)
  get_filename_component(folder ${output} DIRECTORY)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/core/*.[ch])
  add_custom_command(OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${folder}
    COMMAND ${compiler} -std=gnu11 -D_GNU_SOURCE= -g -O1 -Wall -Wextra -fno-omit-frame-pointer ${flags} -I${CMAKE_SOURCE_DIR}
            ${needs_flags} ${file} ${needs_sources} -o ${output} ${libraries} -pthread
    DEPENDS ${file} ${needs_sources} ${headers} VERBATIM)
  add_custom_target(${target} DEPENDS ${output})
endfunction()

# Adds every program of `folder`. `all` is a target that builds them; those for clang have one of their own, `fuzz`, and
# the second builds `tsan`.
function(lupe_add_programs folder all tsan fuzz)
  add_custom_target(${all})
  add_custom_target(${tsan})
  add_custom_target(${fuzz})
  find_program(LUPE_CLANG NAMES clang clang-14 clang-16 clang-19)
  file(GLOB files CONFIGURE_DEPENDS ${folder}/*.c ${folder}/*.cc)
  foreach(file IN LISTS files)
    get_filename_component(name ${file} NAME_WE)
    lupe_read_needs(${file})
    if(name MATCHES "^fuzz_")
      if(LUPE_CLANG)
        set(flags -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all)
        lupe_add_by_hand(clang-${name} ${CMAKE_CURRENT_BINARY_DIR}/${name} ${LUPE_CLANG} "${flags}")
        add_dependencies(${fuzz} clang-${name})
      endif()
      continue()
    endif()
    if(name MATCHES "_plugin$")
      add_library(${name} MODULE ${file} ${needs_sources})
      set_target_properties(${name} PROPERTIES PREFIX "")
    else()
      add_executable(${name} ${file} ${needs_sources})
    endif()
    target_compile_options(${name} PRIVATE ${needs_flags})
    target_link_options(${name} PRIVATE ${needs_flags})
    target_link_libraries(${name} PRIVATE ${needs_link} Threads::Threads)
    if(NOT needs_sources)
      target_compile_options(${name} PRIVATE -fno-sanitize=all)
      target_link_options(${name} PRIVATE -fno-sanitize=all)
    endif()
    add_dependencies(${all} ${name})
    if(name MATCHES "_stress$")
      lupe_add_by_hand(tsan-${name} ${CMAKE_CURRENT_BINARY_DIR}/tsan/${name} ${CMAKE_C_COMPILER}
                       -fsanitize=thread)
      add_dependencies(${tsan} tsan-${name})
    endif()
  endforeach()
endfunction()
