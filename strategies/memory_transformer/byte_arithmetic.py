"""Products of bytes by torch, for the memory, which knows no torch."""

from __future__ import annotations

from functools import cache

import torch

from memory_store.codes import Bytes, Products
from memory_store.rounded import ByteArithmetic


class _TorchBytes:
    """See ``ByteArithmetic``."""

    def multiply(self, queries: Bytes, keys: Bytes, out: Products) -> None:
        torch._int_mm(torch.from_numpy(queries), torch.from_numpy(keys).T, out=torch.from_numpy(out))

    def maxima(self, products: Products, out: Products) -> None:
        torch.amax(torch.from_numpy(products), dim=1, out=torch.from_numpy(out))


@cache
def has_byte_products() -> bool:
    """Whether the processor multiplies bytes exactly and fast (AVX512-VNNI)."""
    return bool(torch.cpu._is_vnni_supported())


@cache
def byte_arithmetic() -> ByteArithmetic | None:
    """That of torch, where it is exact and faster than products of float32."""
    return _TorchBytes() if has_byte_products() else None
