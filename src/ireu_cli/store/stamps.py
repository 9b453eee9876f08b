"""What a file system says of a file: a file that nobody touched since is known again by it, as in git's index."""

import os

_SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file has another time than the one before: file systems keep no finer ones."""

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, time of the content and time of the inode, in nanoseconds."""


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_settled(stamp: Stamp, now: int) -> bool:
    """Whether a change after `now`, in nanoseconds, would show: a file that changed a moment ago may change unseen."""
    return max(stamp[3:]) + _SETTLED < now
