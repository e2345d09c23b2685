"""The machine's speed limit: measured in about a second, printed, and used to decide dtype and compilation.

torch is imported inside the functions: `prepare_environment` must come first, because TorchInductor reads its settings
from the environment when it is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import platform
import shutil
import statistics
import struct
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.run.errors import UserError
from fromnoise.run.folder import processor_name
from fromnoise.run.recipe import Recipe

if TYPE_CHECKING:
    import torch

BF16_PAYS = 1.3  # bf16 is used where its matrix products are at least this much faster than fp32's
COMPILE_PAYS_S = 60.0  # compiling a model takes about half a minute and saves about a third of the time
MATRIX_CPU, MATRIX_GPU = 1024, 8192  # sides of the square products measured: launching a small one takes a GPU longer than computing it
EMULATED_S = 0.5  # a large product that would take longer than this: nobody computes in that dtype, so a small one says enough
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h

_default_threads: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What a stage computes with. Fixed at its start, recorded in stage.json, the same after a resume; but for `peak_flops`, which
    decides nothing and is corrected when it turns out too low (`StageContext.rates`)."""

    device_type: str  # "cpu" or "cuda"
    dtype: str  # "float32" or "bfloat16": what matrix products run in under `autocast`; weights stay float32
    compile: bool
    num_threads: int
    peak_flops: float  # FLOP/s of a large matrix product in `dtype`, measured here: what MFU is a fraction of

    def autocast(self) -> AbstractContextManager:
        """The context forward passes run in; nothing at all for float32."""
        import torch

        return nullcontext() if self.dtype == "float32" else torch.autocast(self.device_type, dtype=self.torch_dtype)

    @property
    def device(self) -> torch.device:
        import torch

        return torch.device(self.device_type)

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        return getattr(torch, self.dtype)

    def clock(self) -> float:
        return clock(self.device_type)

    def seconds_of(self, run: Callable[[], object]) -> float:
        """The median of three calls after one to warm up. A single one may be held up by whatever else the machine does: a step
        measured at one and a half times its length has cost a run with a budget a third of its tokens."""
        run()
        times = []
        for _ in range(3):
            start = self.clock()
            run()
            times.append(self.clock() - start)
        return statistics.median(times)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def clock(device_type: str) -> float:
    """time.perf_counter() once the device has done what it was given: launching work is not doing it."""
    import torch

    if device_type != "cpu":
        getattr(torch, device_type).synchronize()
    return time.perf_counter()


def cache_folder() -> Path:
    """Where things that only save time are kept between runs: $XDG_CACHE_HOME/fromnoise or ~/.cache/fromnoise."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "fromnoise"


def prepare_environment() -> None:
    """Settings that only count when they are made before torch is imported. Values already set are kept."""
    # As many compilers at once as cores, but not the pool of Python workers that usually starts them: it takes 2 GB.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(min(4, os.cpu_count() or 1)))
    os.environ.setdefault("TORCH_WARM_POOL", "0")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its results only with a fixed workspace


LINKING_S = 3.0  # a younger file may be another process's, still being written


def remove_torn_kernels(folder: Path) -> int:
    """Delete the shared objects in the compile cache that were cut off while they were written; how many.

    The compiler writes them in place, so a process killed at that moment leaves a file that every later run would fail to
    load ("file too short").
    """
    num_torn = 0
    for path in folder.rglob("*.so") if folder.is_dir() else ():
        if is_torn(path) and time.time() - path.stat().st_mtime > LINKING_S:
            path.unlink(missing_ok=True)
            num_torn += 1
    return num_torn


def is_torn(library: Path) -> bool:
    """Whether the end of a shared object is missing. An ELF file is whole when its table of section headers, which stands there, is."""
    with library.open("rb") as file:
        head = file.read(64)
    if len(head) < 64 or head[:5] != b"\x7fELF\x02":  # 64-bit ELF: where the table begins, the size of an entry, their number
        return len(head) < 64
    begin, size, count = *struct.unpack("<Q", head[40:48]), *struct.unpack("<HH", head[58:62])
    return library.stat().st_size < begin + size * count


def resolve_device(wanted: str) -> str:
    """`auto` is CUDA where there is one, else the CPU. Raises UserError for a device that is not there, or not for every rank."""
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if wanted == "cuda" and torch.cuda.is_available() and rank >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"device=cuda: this machine has {count} GPU{'s' if count != 1 else ''}, and rank {rank} would need one more; start fewer ranks here")
    if wanted == "cuda" and not torch.cuda.is_available():
        reason = "this torch was built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        raise UserError(f"device=cuda: {reason} (torch {torch.__version__}); use device=cpu or device=auto")
    if wanted == "mps":
        raise UserError("device=mps: not supported, since counts and sums are in float64 here, which an Apple GPU does not have; use device=cpu")
    return wanted


def threads(wanted: int | None) -> int:
    """The number of CPU threads: the recipe's, else torch's own choice (all cores, or OMP_NUM_THREADS)."""
    global _default_threads
    import torch

    if _default_threads is None:
        _default_threads = torch.get_num_threads()
    return wanted or _default_threads


def measure(device: str, num_threads: int) -> dict[str, Any]:
    """{"fingerprint", "matmul_flops_per_s": {"float32", "bfloat16"}}: the best of repeated large square products; of small ones on
    one thread, times their number, where a processor emulates the dtype and a large one would take seconds. (On one thread,
    because a busy neighbour holds up small products on several a thousandfold, and the wrong dtype costs a run.)"""
    import torch

    large = MATRIX_CPU if device == "cpu" else MATRIX_GPU

    def product_s(dtype: torch.dtype, size: int, limit_s: float) -> float:
        generator = torch.Generator().manual_seed(0)
        left, right = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
        best, until, repeats = float("inf"), time.perf_counter() + limit_s, 0
        while repeats < 2 or (time.perf_counter() < until and repeats < 200):
            start = clock(device)
            left @ right
            best = min(best, clock(device) - start)
            repeats += 1
        return best

    speeds = {"float32": 0.0, "bfloat16": 0.0}
    for _ in range(3):  # in turn: what else the machine does for half a second then meets both, and the choice between them is the same
        for name in speeds:
            dtype = getattr(torch, name)
            torch.set_num_threads(1)
            small_s = product_s(dtype, MATRIX_CPU // 8, 0.02)
            torch.set_num_threads(num_threads)
            emulated = small_s * 8**3 > EMULATED_S
            rate = min(num_threads, os.cpu_count() or 1) * 2 * (MATRIX_CPU // 8) ** 3 / small_s if emulated else 2 * large**3 / product_s(dtype, large, 0.1)
            speeds[name] = max(speeds[name], rate)
    return {"fingerprint": fingerprint(device, num_threads), "matmul_flops_per_s": speeds}


def memory_bytes_per_s(device: str) -> float:
    """Bytes read and written a second by an addition in place over 256 MB, more than caches hold: the best of a few."""
    import torch

    numbers = torch.zeros(64 << 20, device=device)
    best = float("inf")
    for _ in range(5):
        start = clock(device)
        numbers.add_(1.0)
        best = min(best, clock(device) - start)
    return 2 * numbers.nbytes / best


def fingerprint(device: str, num_threads: int) -> dict[str, Any]:
    """What the measured speeds are valid for."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    return {"device": device, "processor": name, "num_threads": num_threads, "torch": torch.__version__}


def choose(recipe: Recipe, profile: dict[str, Any], expected_s: float) -> Machine:
    """dtype, compilation and threads for a stage expected to take `expected_s` seconds.

    Raises UserError when the recipe asks to compile and compiling a small function fails.
    """
    speeds, marks = profile["matmul_flops_per_s"], profile["fingerprint"]
    dtype = recipe.dtype
    if dtype == "auto":
        dtype = "bfloat16" if speeds["bfloat16"] >= BF16_PAYS * speeds["float32"] else "float32"
    return Machine(marks["device"], dtype, should_compile(recipe.compile, expected_s, marks["device"]), marks["num_threads"], speeds[dtype])


def should_compile(setting: str, expected_s: float, device: str = "cpu") -> bool:
    """Whether to compile. `auto`: when the stage is long enough to repay it and a small function compiles here."""
    if setting == "off" or (setting == "auto" and expected_s < COMPILE_PAYS_S):
        return False
    remove_torn_kernels(Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", cache_folder() / "inductor")))
    problem = compile_problem(device)
    if problem and setting == "on":
        needed = "a C++ compiler" if device == "cpu" else "Triton"
        raise UserError(f"compile=on: torch.compile does not work here ({problem}); install {needed}, or use compile=off")
    return problem is None


def warm_up_compiler(device: str) -> None:
    """On a CPU, compile a small function: the first time on a machine this also builds the small libraries that say what its processor can do."""
    prepare_environment()
    if resolve_device(device) == "cpu":
        compile_problem()


def compile_problem(device: str = "cpu") -> str | None:
    """None when torch.compile works for `device`, else why it does not: found out by compiling, forwards and backwards."""
    import torch

    quiet_compiler(device)

    def small(x, y):
        return torch.nn.functional.silu(x @ y).sum()

    try:
        x, y = (torch.ones(8, 8, device=device, requires_grad=True) for _ in range(2))
        torch.compile(small, dynamic=False, fullgraph=True)(x, y).backward()
    except Exception as error:  # whatever a broken tool chain raises: the answer is the same
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return (lines or [type(error).__name__])[0][:200]
    return None


def quiet_compiler(device: str) -> None:
    """Without a GPU in use nobody misses CUDA's runtime, which torch warns of when it compiles where CUDA's compiler is installed."""
    if device == "cpu":
        logging.getLogger("torch.utils.cpp_extension").addFilter(_names_no_missing_cuda)


def _names_no_missing_cuda(record: logging.LogRecord) -> bool:
    return "No CUDA runtime is found" not in record.getMessage()


def apply(machine: Machine) -> None:
    """Threads, determinism, memory, what is native in training and what the compiler says, for this process."""
    import torch

    from fromnoise.algorithms import logprobs
    from fromnoise.model import segment_attention
    from fromnoise.run import native

    quiet_compiler(machine.device_type)
    if machine.device_type == "cpu":
        keep_freed_memory()
        in_bf16 = machine.torch_dtype == torch.bfloat16
        logprobs.native_nll_and_gradient = native.cross_entropy() if in_bf16 else None
        segment_attention.library = native.attention() if in_bf16 else None
    torch.set_num_threads(machine.num_threads)
    if machine.compile:
        torch.use_deterministic_algorithms(True)
    else:  # the same without the compiler's own mode, for which the whole compiler is imported: three seconds of every start
        torch.set_deterministic_debug_mode("error")
    torch.backends.cuda.enable_cudnn_sdp(False)  # its attention adds gradients in no fixed order, and newer releases prefer it
    # Filling every new tensor with NaN is deterministic mode's help for finding reads of unset memory; it costs a pass
    # over memory for each allocation, and the tests that compare bytes find the same bugs.
    torch.utils.deterministic.fill_uninitialized_memory = False


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next allocation, until `release_memory`.

    By default it hands large blocks back at once and the kernel zeroes them anew at the next step: at 6 layers x 256 and
    4,096 tokens 48,000 page faults a step, a fifteenth of its time. Price: the process stays as large as its largest step.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library: nothing to set
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def release_memory() -> None:
    """Between stages: collect cycles that hold tensors, and have glibc give freed pages back, which it keeps otherwise."""
    gc.collect()
    give_back_pages()


def give_back_pages() -> None:
    """Have glibc hand freed memory to the system; cycles stay, which a collection takes a quarter of a second to look for among a run's records."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no malloc_trim
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def cxx() -> str | None:
    """The C++ compiler that native code is built with: $CXX, or the first of the usual ones."""
    return next((found for name in (os.environ.get("CXX"), "g++", "clang++", "c++") if name and (found := shutil.which(name))), None)


def numerics(machine: Machine, world_size: int = 1) -> dict[str, Any]:
    """What the last bits of a result depend on beside inputs and settings."""
    import torch

    return {
        "torch": torch.__version__,
        "device": machine.device_type,
        "dtype": machine.dtype,
        "compile": machine.compile,
        "num_threads": machine.num_threads,
        "world_size": world_size,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "cxx": Path(cxx() or "none").name,  # generation, attention and the loss head are native where there is one
        **({"gpu": torch.cuda.get_device_name()} if machine.device_type == "cuda" else {}),
    }


def describe_profile(profile: dict[str, Any]) -> str:
    marks, speeds = profile["fingerprint"], profile["matmul_flops_per_s"]
    shown = ", ".join(f"{name} {speed / 1e9:,.0f}" for name, speed in speeds.items())
    return f"{marks['device']}: {marks['processor']}, {marks['num_threads']} threads, matrix products at {shown} GFLOP/s (torch {marks['torch']})"
