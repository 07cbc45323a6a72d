"""Determines a target's device and data type and checks memory and disk, without importing torch."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from m3i.artifacts import TargetInfo
from m3i.errors import ConfigError, InputError

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Data types that weights may have in memory → bytes per value."""

_WORKING_MEMORY = 1.25
"""Weights, activations, adapter and optimizer state together, as a multiple of the weights alone."""


def resolve_device(device: str) -> str:
    """Returns the kind of device, with `auto` resolved, without importing torch."""
    if device != "auto":
        return device.partition(":")[0]
    return "cuda" if _torch_has_cuda() and _n_cuda_devices() > 0 else "cpu"


def resolve_dtype(dtype: str, device: str, config: Mapping[str, Any]) -> str:
    """Returns the data type of the weights in memory, with `auto` resolved. Raises ConfigError for an unknown one."""
    if dtype != "auto":
        if dtype not in DTYPE_BYTES:
            raise ConfigError(f"target.dtype = {dtype!r}: expected auto, {', '.join(DTYPE_BYTES)}")
        return dtype
    own = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return own if device != "cpu" and own in DTYPE_BYTES else "float32"


def require_memory(info: TargetInfo) -> None:
    """Raises InputError if weights and working memory do not fit into the free CPU memory.

    GPU memory can only be queried through torch: `m3i.models.huggingface.load.load_folder` checks it before loading.
    """
    if info.device == "cpu":
        import psutil

        require_room(info, psutil.virtual_memory().available, "memory")


def require_room(info: TargetInfo, available: int, what: str) -> None:
    """Raises InputError if the target and its training do not fit into `available` bytes."""
    needed = int(info.n_parameters * DTYPE_BYTES[info.dtype] * _WORKING_MEMORY)
    if needed > available:
        raise InputError(
            f"target {info.name} needs about {needed / 1e9:.1f} GB of {what} ({info.n_parameters / 1e9:.2f} B "
            f"parameters in {info.dtype}, plus a quarter as working memory), but {available / 1e9:.1f} GB are free; "
            "give target.dtype=bfloat16, another target.device, or a smaller target"
        )


def require_disk(folder: Path, needed: int, what: str) -> None:
    """Raises InputError if the file system of a folder (or of its nearest existing parent) has too little space."""
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise InputError(f"{what} needs {needed / 1e9:.1f} GB on {existing}, but {free / 1e9:.1f} GB are free")


def _torch_has_cuda() -> bool:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).parent / "version.py"
    lines = version.read_text().splitlines() if version.is_file() else []
    return any(line.startswith("cuda") and not line.rstrip().endswith("None") for line in lines)


@cache
def _n_cuda_devices() -> int:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
