"""Runs Python code as a user with an empty home folder, where no other machine can be reached.

What the code leaves in the home folder, and which other machines it asked for, is returned. On Linux the
process gets a network of its own (`unshare`), in which every packet is read: native code cannot get past it.
Elsewhere only Python's own look-ups and connections are seen.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT", "OMP_NUM_THREADS")
KEPT += ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_NETWORK = 'ip link set lo up && ip route add local 0.0.0.0/0 dev lo src 127.0.0.1 && exec "$@"'
_WATCH = """
import atexit as _atexit, ipaddress as _ip, os as _os, socket as _socket, threading as _threading

def _note(what):
    with open(_os.environ["ASKED"], "a", encoding="utf-8") as file:
        file.write(f"{what}\\n")

def _name(question):
    parts = []
    while question and question[0]:
        parts.append(question[1 : 1 + question[0]].decode("ascii", "replace"))
        question = question[1 + question[0] :]
    return ".".join(parts)

def _read(packets):
    here = _socket.gethostname().lower().split(".")[0]
    while True:
        packet = packets.recv(65535)
        if packet.endswith(b"the last packet"):
            _all_read.set()
        if packet[0] >> 4 != 4:
            continue
        head, where = (packet[0] & 15) * 4, str(_ip.ip_address(packet[16:20]))
        port = int.from_bytes(packet[head + 2 : head + 4], "big")
        if packet[9] == 17 and port == 53:
            name = _name(packet[head + 20 :])
            if name.lower().split(".")[0] not in (here, "localhost"):
                _note(name)
        elif not where.startswith("127.") and not _ip.ip_address(where).is_multicast:
            _note(f"{where}:{port}")

if _os.environ["OWN_NETWORK"]:
    _packets = _socket.socket(_socket.AF_PACKET, _socket.SOCK_DGRAM, _socket.htons(3))
    _packets.bind(("lo", 0))
    _all_read = _threading.Event()
    _threading.Thread(target=_read, args=(_packets,), daemon=True).start()

    @_atexit.register
    def _read_to_the_end():
        _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM).sendto(b"the last packet", ("127.0.0.1", 9))
        _all_read.wait(30)

else:
    _lookup, _connect = _socket.getaddrinfo, _socket.socket.connect
    _own = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "", None, _socket.gethostname())

    def _only_here(host):
        if isinstance(host, bytes):
            host = host.decode()
        if host not in _own:
            _note(host)
            raise OSError("no network in this test")

    def getaddrinfo(host, *args, **kwargs):
        _only_here(host)
        return _lookup(host, *args, **kwargs)

    class _Watched(_socket.socket):
        def connect(self, address):
            if isinstance(address, tuple):
                _only_here(address[0])
            return super().connect(address)

    _socket.getaddrinfo, _socket.socket = getaddrinfo, _Watched
"""


@dataclass(frozen=True)
class Left:
    """What a run left: files relative to the home folder, names or addresses of other machines it asked."""

    files: list[str]
    hosts: list[str]


@functools.cache
def own_network() -> list[str]:
    """The command in front of one that gets a network without other machines; empty where that cannot be."""
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", _NETWORK, "sh"]
    if not all(map(shutil.which, ("unshare", "ip"))):
        return []
    return (
        command
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        else []
    )


def run_in_fresh_home(code: str, home: Path, timeout: float = 900) -> Left:
    """Run code that may use the folder `home`; AssertionError with its errors if it does not end well."""
    home.mkdir(parents=True, exist_ok=True)
    work = home.with_name(home.name + "-work")  # current folder
    work.mkdir(exist_ok=True)
    asked = work / "asked.txt"
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": paths, "ASKED": str(asked)}
    # kernels that tests of the user's own home have compiled, which takes 5 s
    environment["WARP_CACHE_PATH"] = os.environ.get("WARP_CACHE_PATH", str(Path.home() / ".cache/warp"))
    environment["OWN_NETWORK"] = "1" if own_network() else ""
    done = subprocess.run(
        [*own_network(), sys.executable, "-W", "ignore", "-c", _WATCH + code],
        env=environment,
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        encoding="utf-8",
        errors="replace",
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    files = sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir())
    hosts = asked.read_text(encoding="utf-8").split() if asked.exists() else []
    return Left(files, sorted(set(hosts)))
