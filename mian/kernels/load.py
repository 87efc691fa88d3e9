"""The compiled operators, ``torch.ops.mian``, where they are there."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from pathlib import Path

import torch

from mian.kernels import shapes

log = logging.getLogger(__name__)


_found: bool | None = None  # and no functools.cache, which torch.compile warns of
_has_gpu = False


def is_compiled() -> bool:
    """Whether the compiled operators could be loaded; where they could not, it is said once."""
    global _found
    if _found is None:
        _found = _load()
    return _found


def _load() -> bool:
    if hasattr(torch.ops.mian, "attention"):  # by another copy of this package: a served model brings its own
        return _is_whole()
    libraries = sorted(Path(__file__).parent.glob("compiled.*"))
    try:
        for library in libraries:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError as error:  # made for another processor, system or version of torch
        log.warning(
            "%s cannot be loaded (%s): install the package again; until then torch's own operators do, slower", library, error
        )
        return False
    if not libraries:
        log.warning(
            "the compiled operators are not built; torch's own do, slower: run scripts/setup.sh where there is a C++ compiler"
        )
        return False
    if not _is_whole():
        return False
    global _has_gpu
    shapes.register()
    if torch.cuda.is_available() and importlib.util.find_spec("triton") is not None:  # a torch for GPUs brings it
        importlib.import_module("mian.kernels.gpu").register()
        _has_gpu = True
    return True


def _is_whole() -> bool:
    missing = [name for name in shapes.LIKE if not hasattr(torch.ops.mian, name)]
    if missing:
        log.warning(
            "the compiled operators are of another version, and have no %s; torch's own do, slower: run scripts/setup.sh",
            missing[0],
        )
    return not missing


def fits(*tensors: torch.Tensor) -> bool:
    """Whether the compiled operators take these tensors of floats."""
    return all(tensor.dtype == torch.float32 for tensor in tensors) and fits_devices(*tensors)


def fits_as_float32(*tensors: torch.Tensor) -> bool:
    """Whether they take these tensors of floats once they are made float32: what autocast has made bfloat16 as well."""
    return all(tensor.dtype in (torch.float32, torch.bfloat16) for tensor in tensors) and fits_devices(*tensors)


def fits_gpu(*tensors: torch.Tensor) -> bool:
    """Whether the operators of a GPU take these tensors of floats, once they are made float32."""
    fits_one = all(tensor.device.type == "cuda" and tensor.dtype in (torch.float32, torch.bfloat16) for tensor in tensors)
    return fits_one and _is_usable() and _has_gpu


def fits_histories(*tensors: torch.Tensor) -> bool:
    """Whether operators over packed histories take these tensors of floats: those of a CPU, or those of a GPU."""
    return fits_gpu(*tensors) or fits_as_float32(*tensors)


def fits_devices(*tensors: torch.Tensor) -> bool:
    """Whether they take tensors where these are."""
    return all(tensor.device.type == "cpu" for tensor in tensors) and _is_usable()


def _is_usable() -> bool:
    """Whether the compiled operators are to be called: an exported graph, which runs elsewhere, has torch's own."""
    return not torch.compiler.is_exporting() and is_compiled()
