"""What a file system says about a file, by which an unchanged file is recognised, as in git's index."""

import os
from typing import NamedTuple

_SETTLED = 2_000_000_000
"""Nanoseconds after which a second change of a file surely gets another time: file systems keep no finer times."""


class Stamp(NamedTuple):
    """Values that change when a file is written to or replaced; times are in nanoseconds.

    The last one changes with every change of the file, and only the system sets it.
    """

    device: int
    inode: int
    size: int
    content_time: int
    inode_time: int


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_settled(stamp: Stamp, now: int) -> bool:
    """Whether a change after `now`, in nanoseconds, would show: a file that just changed may change again unseen."""
    return max(stamp.content_time, stamp.inode_time) + _SETTLED < now
