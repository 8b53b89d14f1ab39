"""Compiled kernels: by numba where it is installed (the extra `fast`)."""

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@cache
def has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def compiled(function: F, **options: Any) -> F:
    """Compiled at the first call and kept in numba's cache; runs without the GIL. `options` are those of `numba.njit`."""
    import numba

    return numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)  # type: ignore[no-any-return]
