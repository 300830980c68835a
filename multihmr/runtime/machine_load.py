"""How many cores this process may use, and how many threads of other processes want them."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath


def running_elsewhere() -> int:
    """How many threads of other processes run or wait for a core now; 0 where Linux does not tell."""
    try:
        running = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0])
        return max(0, running - _own_running()) if running > 1 else 0
    except (OSError, ValueError, IndexError):
        return 0


def usable_cores() -> int:
    """Cores that this process may use at a time: those it may run on, and no more than its quota.

    Containers get a quota (`docker run --cpus 2`), which neither torch nor libgomp knows.
    """
    return max(1, math.floor(min(cores(), quota())))


def cores() -> int:
    """Cores that threads of this process may run on, as libgomp counts them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def quota(root: Path = Path("/")) -> float:
    """Cores whose time Linux's control groups grant this process; infinite without a limit.

    Args:
        root: folder that has `proc` and `sys`.
    """
    least = math.inf
    with suppress(OSError, ValueError):  # a name in no known encoding, a line of another form
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":  # version 2
                folder, limit = root / "sys/fs/cgroup", _limit_of_version_2
            elif "cpu" in controllers.split(","):
                folder, limit = root / "sys/fs/cgroup" / controllers, _limit_of_version_1
            else:
                continue
            place = PurePosixPath(group.lstrip("/"))
            for each in {place, *place.parents, PurePosixPath()}:  # each limits what is below it
                with suppress(OSError, ValueError):
                    least = min(least, limit(folder / each))
    return least


def _limit_of_version_2(group: Path) -> float:
    allowed, period = (group / "cpu.max").read_text(encoding="ascii").split()
    return math.inf if allowed == "max" else int(allowed) / int(period)


def _limit_of_version_1(group: Path) -> float:
    allowed, period = (
        int((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii")) for name in ("quota", "period")
    )
    return math.inf if allowed <= 0 else allowed / period


def _own_running() -> int:
    count = 0
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has just ended
            count += (task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "R"
    return count
