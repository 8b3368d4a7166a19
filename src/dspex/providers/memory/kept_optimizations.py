"""Optimizations that completed, kept in this process's memory: nothing changes them any more."""

from moka_py import Moka

from dspex.kit import json
from dspex.optimizations.records import Optimization

TTL_S = 3600.0
BYTES = 16 * 1024 * 1024
# What one takes besides its result and its curve.
OVERHEAD = 4096


class KeptOptimizations:
    """`optimizations.ports.KeptResults`, bounded by bytes."""

    def __init__(self, *, memory_bytes: int = BYTES, ttl_s: float = TTL_S) -> None:
        self._kept: Moka[tuple[str, str], Optimization] = Moka(
            memory_bytes, ttl=ttl_s, weigher=lambda _, kept: _weight(kept)
        )

    def get(self, project: str, optimization_id: str) -> Optimization | None:
        return self._kept.get((project, optimization_id))

    def put(self, optimization: Optimization) -> None:
        self._kept.set((optimization.project, optimization.id), optimization)


def _weight(one: Optimization) -> int:
    return OVERHEAD + len(json.dumps(one.result)) + len(json.dumps(one.standing.curve))
