# With EDGEPOSE_SANITIZE every target is checked for memory errors and undefined behaviour; the first finding ends the run.
if(EDGEPOSE_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1)
  add_link_options(-fsanitize=address,undefined)
endif()
