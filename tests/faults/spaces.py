"""Places that run out: a small tmpfs in a mount namespace of one's own, or, where nothing may be mounted, a quota."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Protocol

from tests.faults import shim

_NEW_NAMESPACE, _NEW_USER = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18


class Space(Protocol):
    def grow(self) -> None:
        """As if somebody had freed plenty."""


class Tmpfs:
    """A real file system of ``size`` bytes, seen by this process alone and gone with it."""

    def __init__(self, place: Path, size: int) -> None:
        self._place = place
        enter_namespace()
        _mount("tmpfs", place, "tmpfs", 0, f"size={size}")

    def grow(self) -> None:
        _mount("tmpfs", self._place, "tmpfs", _REMOUNT, "size=64m")


class Quota:
    """The shim answers ENOSPC once the files of a place have grown by ``room`` bytes."""

    def __init__(self, place: Path, room: int) -> None:
        shim.arm(place, shim.Fault("quota", 1, value=room))

    def grow(self) -> None:
        shim.arm(Path("/"), shim.Fault("nothing", 0))


def enter_namespace() -> None:
    """Mounts from here on are this process's own. Raises OSError where that is not allowed."""
    user, group = os.getuid(), os.getgid()
    if _libc().unshare(_NEW_NAMESPACE):
        _check(_libc().unshare(_NEW_NAMESPACE | _NEW_USER), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount("none", Path("/"), "", _RECURSIVE | _PRIVATE, "")


def make_read_only(place: Path) -> None:
    """The same directory, mounted over itself read-only."""
    _mount(str(place), place, "", _BIND, "")
    _mount(str(place), place, "", _BIND | _REMOUNT | _READ_ONLY, "")


def obey_modes() -> None:
    """Take from root what lets it ignore the mode bits of files (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER)."""
    if os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    _check(_libc().capget(header, sets), "capget")
    for position in (0, 1):  # effective, permitted
        sets[position] &= ~0b1110
    _check(_libc().capset(header, sets), "capset")


def _mount(source: str, target: Path, kind: str, flags: int, options: str) -> None:
    _check(
        _libc().mount(
            source.encode(),
            str(target).encode(),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            options.encode() or None,
        ),
        f"mount on {target}",
    )


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
