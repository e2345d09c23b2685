"""The package's C++ files, built by the machine's own compiler when they are first used and kept in the cache folder."""

from __future__ import annotations

import ctypes
import hashlib
import platform
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from torch import Tensor

from fromnoise.run.folder import processor_name
from fromnoise.run.machine import cache_folder, cxx, is_torn

# clang for Apple's processors has no -march=native
FLAGS = ("-O3", "-mcpu=native" if platform.machine().lower() in ("arm64", "aarch64") else "-march=native", "-std=c++17", "-shared", "-fPIC", "-w")
CROSS_ENTROPY = Path(__file__).parents[1] / "algorithms" / "cross_entropy.cpp"
ATTENTION = Path(__file__).parents[1] / "model" / "attention.cpp"


def build(source: Path, flags: Sequence[str] = FLAGS) -> ctypes.CDLL | str:
    """The library made of `source`, or why there is none."""
    compiler = cxx()
    if compiler is None:
        return "no C++ compiler was found (g++, clang++ or $CXX)"
    marks = "\n".join((source.read_text(), *flags, compiler, processor_name()))
    path = cache_folder() / "native" / f"{hashlib.sha256(marks.encode()).hexdigest()[:16]}.so"
    try:
        if not path.exists() or is_torn(path):  # by a power cut: its name was on disk before its end was
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # whole or not at all, whoever else builds it now
                built = Path(folder) / "native.so"
                subprocess.run([compiler, *flags, str(source), "-o", str(built)], check=True, capture_output=True, text=True)
                built.replace(path)
        return ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        reasons = [line for line in error.stderr.splitlines() if "error" in line]
        return "it does not compile here" + (f": {reasons[0].split('error', 1)[1].lstrip(': ')}" if reasons else "")
    except OSError as error:
        return str(error)


@cache
def cross_entropy() -> Callable[[Tensor, Tensor, Tensor], None] | None:
    """cross_entropy.cpp as f(logits (N, V) bf16, labels (N,) int64, nll (N,) fp32), all contiguous; it fills `nll` and turns the logits
    into their gradient. None where it cannot be built."""
    loaded = build(CROSS_ENTROPY, (*FLAGS, "-fopenmp-simd"))
    if isinstance(loaded, str):
        return None
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    loaded.cross_entropy.argtypes, loaded.cross_entropy.restype = [pointer, count, count, pointer, pointer], None

    def run(logits: Tensor, labels: Tensor, nll: Tensor) -> None:
        loaded.cross_entropy(logits.data_ptr(), *logits.shape, labels.data_ptr(), nll.data_ptr())

    return run


@cache
def attention() -> ctypes.CDLL | None:
    """attention.cpp for model/segment_attention.py; None where it cannot be built or the processor has no products in bf16."""
    loaded = build(ATTENTION)
    return None if isinstance(loaded, str) else loaded
