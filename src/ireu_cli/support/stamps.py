"""What a file system says of a file: a file that nobody touched since is known again by it, as in git's index."""

import os
from typing import NamedTuple

_SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file has another time than the one before: file systems keep no finer ones."""


class Stamp(NamedTuple):
    """What changes when somebody writes to a file, or puts another in its place; times in nanoseconds.

    The last one changes with everything about the file, and the system sets it.
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
    """Whether a change after `now`, in nanoseconds, would show: a file that changed a moment ago may change unseen."""
    return max(stamp.content_time, stamp.inode_time) + _SETTLED < now
