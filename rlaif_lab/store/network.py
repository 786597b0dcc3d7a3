"""Which folders lie on a network file system, where a database cannot use write-ahead logging."""

from __future__ import annotations

import os
from pathlib import Path

NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "afs",
    "9p",
    "gluster",
    "fuse.",
    "pvfs",
    "orangefs",
)
"""How types of file systems on networks begin: no shared memory between machines, which write-ahead logging needs."""


def on_network(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Return whether a folder lies on a network file system, as far as the system says."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        place = Path(os.path.realpath(folder))
    except OSError:
        return False
    best, kind = -1, ""
    # The longest mount point that holds the folder: mounts lie within mounts.
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # Spaces are written as octal 040 in the list of mounts.
        point = Path(fields[1].replace("\\040", " "))
        if (place == point or point in place.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind.startswith(NETWORK)
