"""The compiled part of the package; all else is in setup.cfg."""

import sys
from pathlib import Path

import setuptools

NAME = "mian.kernels.compiled"
SOURCES = ["mian/kernels/kernels.cpp"]
HEADERS = [str(path) for path in sorted(Path("mian/kernels").glob("*.h"))]  # where one is newer, all is compiled again

try:
    from torch.utils.cpp_extension import BuildExtension, CppExtension
except ImportError:  # a wheel for Spark's machines, which have no torch and need none
    setuptools.setup()
else:
    # OpenMP for the compiler alone: at::parallel_for is a template around its pragma, and the library is to be the one that torch brings.
    openmp = ["-fopenmp"] if sys.platform == "linux" else []
    # Optional: without it all runs on torch's own operators, slower.
    extension = CppExtension(
        NAME,
        SOURCES,
        depends=HEADERS,
        include_dirs=["."],
        extra_compile_args=["-O3", "-g0", "-Wno-psabi", *openmp],
        optional=True,
    )
    setuptools.setup(ext_modules=[extension], cmdclass={"build_ext": BuildExtension.with_options(use_ninja=False)})
