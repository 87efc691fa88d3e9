#!/usr/bin/env bash
# The C++ compiler that builds Horovod: Horovod asks for C++14, the headers of today's PyTorch need C++20.
# Every -std=... becomes -std=gnu++20; all else goes to the compiler as it came. MIAN_CXX names the compiler.
set -euo pipefail

arguments=()
for argument in "$@"; do
  case $argument in
    -std=*) arguments+=(-std=gnu++20) ;;
    *) arguments+=("$argument") ;;
  esac
done
exec "${MIAN_CXX:-g++}" "${arguments[@]}"
