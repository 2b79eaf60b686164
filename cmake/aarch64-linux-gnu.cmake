# Cross-builds for 64-bit ARM Linux (Raspberry Pi 3 to 5 with a 64-bit system, Coral boards). tests/aarch64/run.sh uses it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static;-L;/usr/aarch64-linux-gnu)

# The headers of the target's Python: one version's pyconfig.h differs between processors.
if(DEFINED ENV{EDGEPOSE_AARCH64_ROOT})
  set(Python_INCLUDE_DIR "$ENV{EDGEPOSE_AARCH64_ROOT}/usr/include/python3.11" CACHE PATH "")
  include_directories(SYSTEM "$ENV{EDGEPOSE_AARCH64_ROOT}/usr/include")
  set(PYTHON_MODULE_EXTENSION ".cpython-311-aarch64-linux-gnu.so" CACHE STRING "")
  set(PYTHON_MODULE_DEBUG_POSTFIX "" CACHE STRING "")
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
