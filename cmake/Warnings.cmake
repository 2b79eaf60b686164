# edgepose_warnings(TARGET): the warnings that the project's own code must not give.
function(edgepose_warnings target)
  if(MSVC)
    target_compile_options(${target} PRIVATE /W4)
  else()
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion)
  endif()
endfunction()
