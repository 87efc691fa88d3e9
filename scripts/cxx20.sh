#!/usr/bin/env bash
# The C++ compiler that builds Horovod: Horovod asks for C++14, the headers of today's PyTorch need C++20.
# Every -std=... becomes -std=gnu++20; -g goes, for debug information is a third of the time; all else goes to the compiler as it came.
# MIAN_CXX names the compiler.
# nvcc, whose compiler this is too, says itself what it can read; Horovod's kernels know nothing of PyTorch.
set -euo pipefail

case " $* " in
  *' -D__CUDACC__ '* | *' -D__NVCC__ '* | *' -D__CUDA_ARCH'* | *.cudafe1.*) exec "${MIAN_CXX:-g++}" "$@" ;;
esac

arguments=()
for argument in "$@"; do
  case $argument in
    -std=*) arguments+=(-std=gnu++20) ;;
    -g) ;;
    *) arguments+=("$argument") ;;
  esac
done
# These only pass tensors on, or tune buffers, which is off; what adds up numbers keeps its -O3.
case " $* " in
  *' -c '*/horovod/torch/*.cc* | *' -c '*/horovod/common/optim/*.cc*) arguments+=(-O1) ;;
esac
exec "${MIAN_CXX:-g++}" "${arguments[@]}"
