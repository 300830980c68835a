"""One file from the first address that has it: resumed where it stopped, checked, never half there.

The bytes gather in NAME.part beside the file that is wanted; NAME.part.json identifies the version of
the remote file, so that a part is only ever continued with bytes of the same version. The file
itself appears with one rename, after all checks. NAME.lock belongs to the process that is at work.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from tqdm import tqdm

from .paths import plain_reason

logger = logging.getLogger(__name__)

ATTEMPTS = 4  # how often one address may break off in the middle
PAUSE_S = 1.0  # between two of them
TIMEOUT_S = 30.0  # without a byte
CHUNK = 1 << 18  # bytes


def download(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str = "",
    size: int | None = None,
    starts: Sequence[bytes] = (),
) -> Path:
    """`target`, fetched from the first of `urls` that gives it; no request is made if it exists.

    sha256 and size [bytes] are compared where they are known, as is the length that the server announces;
    `starts` are the first bytes that such a file can have. Of several processes one fetches and the others
    wait for it. What an interrupted call leaves is continued by the next one.

    Raises:
        ConnectionError: no address gave the file; each one's reason is in the sentence.
        OSError: the folder cannot be written, or the disk is full.
    """
    if target.exists():
        return target
    with locked(target):
        if target.exists():  # another process was first
            return target
        part = _Part(target.with_name(target.name + ".part"), target)
        reasons = []
        for url in urls:
            try:
                _fetch(url, part)
                _check(part, sha256, size, starts)
            except ConnectionError as error:
                reasons.append(f"{url} {error}")
                continue
            os.replace(part.path, target)
            part.forget()
            return target
    raise ConnectionError(
        f"{target.name} cannot be fetched: {'; '.join(reasons)}. "
        "Try again later, or download it in another way and give its path"
    )


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """One process at a time for `target`; the operating system frees the lock of a process that died."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("another process is fetching %s: waiting for it", target.name)
            lock.acquire()
    except OSError as error:
        raise _local(error, target) from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Part:
    """The bytes that are there of `target`, and of which version of the remote file they are."""

    path: Path
    target: Path

    @property
    def notes(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def resume(self, url: str) -> tuple[int, str, int | None]:
        """(bytes that are there, validator of their version, length of the whole); 0 bytes: start anew."""
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
            have, validator, total = self.path.stat().st_size, notes["validator"], notes["total"]
            fits = notes["url"] == url and bool(validator) and (total is None or have <= total)
        except (OSError, ValueError, KeyError, TypeError):
            return 0, "", None
        return (have, validator, total) if fits else (0, "", None)

    def note(self, url: str, validator: str, total: int | None) -> None:
        text = json.dumps({"url": url, "validator": validator, "total": total})
        self.notes.write_text(text, encoding="utf-8")

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


def _fetch(url: str, part: _Part) -> None:
    """All bytes of `url` into the part, in as many attempts as allowed; ConnectionError without the url."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S)
        have, validator, total = part.resume(url)
        if have and have == total:
            return  # stopped between the last byte and the checks
        with _open(url, have, validator) as response:
            try:
                _receive(response, url, part, have)
                return
            except ConnectionError as error:
                reason = str(error)
    raise ConnectionError(f"{reason}, in each of {ATTEMPTS} attempts")


def _open(url: str, have: int, validator: str) -> HTTPResponse:
    """The answer to a request for the bytes from `have` on, or for all if the remote file has changed."""
    headers = {"User-Agent": "multihmr", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:  # a server that knows no If-Range, and whose file is now shorter
            return _open(url, 0, "")
        reason = str(error.reason).partition("\n")[0]
        raise ConnectionError(f"answers {error.code} {reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = str(error.reason if isinstance(error, URLError) else error)
        raise ConnectionError(f"cannot be reached ({plain_reason(reason)})") from None
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        response.close()
        raise ConnectionError("sends a web page, not the file")
    return response


def _receive(response: HTTPResponse, url: str, part: _Part, have: int) -> None:
    """Write what comes behind the bytes that are there, or over them where the server starts anew."""
    validator = _validator(response)
    start = have if response.status == 206 else 0
    if start and not _continues(response, start, part.resume(url)[1]):
        part.forget()
        raise ConnectionError("sends another range than requested")
    length = response.headers.get("Content-Length")
    total = start + int(length) if length and length.isdigit() else None
    try:
        if total is not None and shutil.disk_usage(part.path.parent).free < total - start:
            raise OSError(errno.ENOSPC, "No space left on device")
        if not start:
            part.forget()
            part.note(url, validator, total)
        count = start
        with (
            part.path.open("ab") as file,
            tqdm(
                desc=part.target.name,
                initial=start,
                total=total,
                unit="B",
                unit_scale=True,
                disable=None,  # a bar on terminals only
            ) as bar,
        ):
            while chunk := _read(response):
                file.write(chunk)
                count += len(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())  # whole on the disk before it gets its name
    except ConnectionError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            part.forget()  # a full disk needs the space
        raise _local(error, part.target, total) from error
    if total is not None and count != total:
        raise ConnectionError(f"breaks off after {count} of {total} bytes")


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, HTTPException) as error:
        raise ConnectionError(f"breaks off ({str(error) or type(error).__name__})") from None


def _validator(response: HTTPResponse) -> str:
    """What names this version of the remote file to byte: its strong ETag, else its date, else nothing."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _continues(response: HTTPResponse, start: int, validator: str) -> bool:
    """Whether a 206 answer brings the bytes from `start` on of the version that the part is of."""
    same = _validator(response) in ("", validator)
    return same and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _check(part: _Part, sha256: str, size: int | None, starts: Sequence[bytes]) -> None:
    """ConnectionError if the whole file is not the one that is wanted; it is removed then."""
    reason = ""
    digest = hashlib.sha256()
    with part.path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        while sha256 and (chunk := file.read(CHUNK)):
            digest.update(chunk)
    count = part.path.stat().st_size
    if not head:
        reason = "sends an empty file"
    elif starts and not head.startswith(tuple(starts)):
        reason = f"sends something else: it starts with {head!r}"
    elif size is not None and count != size:
        reason = f"sends {count} bytes where {size} were expected"
    elif sha256 and digest.hexdigest() != sha256:
        reason = f"sends a file with sha256 {digest.hexdigest()} where {sha256} was expected"
    if reason:
        part.forget()
        raise ConnectionError(reason)


def _local(error: OSError, target: Path, total: int | None = None) -> OSError:
    """The sentence for what this machine does not let us write."""
    cure = "set MULTIHMR_HOME to a folder on another disk"
    if error.errno == errno.ENOSPC:
        need = f" for {total / 1e6:.1f} MB" if total else ""
        return OSError(f"no room{need} in {target.parent} to fetch {target.name}: free some, or {cure}")
    reason = error.strerror or str(error)
    kind = PermissionError if isinstance(error, PermissionError) else OSError
    return kind(
        f"{target.name} cannot be written to {target.parent} ({reason}): set MULTIHMR_HOME to your own folder"
    )
