"""Merging, for whoever has torch: on disk, in memory, and the proof.

| | |
|---|---|
| :func:`write_merged` | a plan becomes files of weights |
| :func:`compare` | files of weights, held against the sum in float64 |
| :func:`merge_`, :func:`unmerge_` | weights that a process holds already, changed in place and given back |

The whole of a merge, with config, card and checks, is :meth:`registry.connect.Registry.merge`.
"""

from registry.transforms.live import Saved, merge_, unmerge_
from registry.transforms.streaming import peak_memory, same_numbers, write_merged
from registry.transforms.verify import compare

__all__ = [
    "Saved",
    "compare",
    "merge_",
    "peak_memory",
    "same_numbers",
    "unmerge_",
    "write_merged",
]
