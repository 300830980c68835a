"""Images from elsewhere than files: http and https addresses, data URIs, base64, standard input, lists."""

from __future__ import annotations

import base64
import binascii
import http.client
import ipaddress
import os
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path, PurePath
from typing import Any

from ..storage.paths import plain_reason, user_path

STDIN = "-"
MAX_BYTES = 256 * 2**20  # of one image, wherever it comes from
TIMEOUT_S = 30.0  # for a whole download
_CHUNK = 1 << 16
_URL = re.compile(r"^(https?):/{1,2}(?=[^/])", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}(?=[^/])")  # of two letters or more: C:/ is a drive
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
_SHORTEST_BASE64 = 64  # characters; shorter text is a path
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def as_url(source: object) -> str | None:
    """The http or https address that a text or path is, None if it is none.

    `Path("https://host/a.jpg")` drops a slash, which is put back.
    """
    text = str(source)
    return _URL.sub(lambda match: f"{match[1].lower()}://", text) if _URL.match(text) else None


def is_elsewhere(text: str) -> bool:
    """Whether a text names an image that is no file: a web address, a data URI, or - for standard input."""
    return text == STDIN or as_url(text) is not None or text[:5].lower() == "data:"


def path_of(source: str | os.PathLike[str]) -> Path:
    """The path that a text or path names: as it is, with "~" for the home folder, or as a file:// address.

    Raises:
        ValueError: it is an address of another kind, as s3:// or ftp://.
    """
    text = os.fspath(source)
    match = _SCHEME.match(text)
    if match is None or os.path.exists(text.partition("\0")[0]):
        return user_path(source)
    scheme, rest = match[1].lower(), text[match.end() :]
    if scheme != "file":
        whole = shorten(f"{scheme}://{rest}")
        raise ValueError(f"{whole} cannot be read: addresses may be http, https and file; download it first")
    return Path(urllib.request.url2pathname("/" + rest.removeprefix("localhost/")))


def file_name_of(text: str) -> str:
    """The name of the file that a path or web address leads to; "" for data URIs and standard input."""
    url = as_url(text)
    if url is not None:
        return urllib.parse.unquote(urllib.parse.urlsplit(url).path).rstrip("/").rpartition("/")[2]
    return "" if is_elsewhere(text) else PurePath(text).name


def stem_of(text: str) -> str:
    """The name for files made from an image that `is_elsewhere`."""
    if as_url(text) is None:
        return "stdin" if text == STDIN else "image"
    stem = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", file_name_of(text))
    stem = stem.rpartition(".")[0] or stem
    return stem.strip(". ")[:100] or "image"


def shorten(text: str, length: int = 300) -> str:
    """Text for a message: its beginning, if it is long. Paths are whole, since their end tells most."""
    return text if len(text) <= length else f"{text[:80]}... ({len(text)} characters)"


def read_url(
    url: str, *, max_bytes: int = MAX_BYTES, timeout: float = TIMEOUT_S, public_only: bool = False
) -> bytes:
    """Download the content of an http or https address.

    Args:
        url: the address.
        max_bytes: more are not read.
        timeout: seconds until everything must be there.
        public_only: refuse addresses of this machine and of local networks, after each redirection too. For
            servers that read untrusted addresses.

    Raises:
        ValueError: the address is malformed or refused, or has more than `max_bytes`.
        FileNotFoundError: the server has no such page.
        TimeoutError: it takes longer.
        ConnectionError: it cannot be read for another reason.
    """
    deadline = time.monotonic() + timeout
    opener = urllib.request.build_opener(
        *([urllib.request.ProxyHandler({})] if public_only else []),
        _HTTPHandler(public_only),
        _HTTPSHandler(public_only),
        _RedirectHandler(),
    )
    name = shorten(url)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "multihmr", "Accept": "*/*"})
        with opener.open(request, timeout=min(10.0, timeout)) as answer:
            return _read_all(answer, name, max_bytes, deadline, timeout)
    except urllib.error.HTTPError as error:
        error.close()
        kind = FileNotFoundError if error.code in (404, 410) else ConnectionError
        raise kind(f"{name} cannot be read: the server answers {error.code} {error.reason}") from None
    except _RefusedAddressError as error:
        raise ValueError(f"{name} is refused: {error}") from None
    except TimeoutError:
        raise TimeoutError(f"{name} takes longer than {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, _RefusedAddressError):
            raise ValueError(f"{name} is refused: {reason}") from None
        if isinstance(reason, TimeoutError):
            raise TimeoutError(f"{name} takes longer than {timeout:g} s") from None
        raise ConnectionError(f"{name} cannot be read: {plain_reason(reason)}") from None


def _read_all(answer: Any, name: str, max_bytes: int, deadline: float, timeout: float) -> bytes:
    too_large = f"{name} has more than {max_bytes / 2**20:g} MB, which are not read"
    announced = answer.headers.get("Content-Length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > max_bytes:
        raise ValueError(too_large)
    chunks, count = [], 0
    while chunk := answer.read1(_CHUNK):
        chunks.append(chunk)
        count += len(chunk)
        if count > max_bytes:
            raise ValueError(too_large)
        if time.monotonic() > deadline:
            raise TimeoutError
    if announced.isascii() and announced.isdigit() and count < int(announced):
        raise ConnectionError(f"it broke off after {count} of {announced} bytes")
    return b"".join(chunks)


def read_data_uri(text: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a data URI, as data:image/png;base64,...

    Raises:
        ValueError: it is malformed or too large.
    """
    head, comma, content = text.partition(",")
    if not comma:
        raise ValueError(f"{shorten(text)} is no data URI: it has no comma before its data")
    data = urllib.parse.unquote_to_bytes(content)
    if head.lower().rstrip().endswith(";base64"):
        decoded = decode_base64(data.decode("ascii", "replace"))
        if decoded is None:
            raise ValueError(f"{shorten(text)} is a data URI whose base64 is damaged")
        data = decoded
    if len(data) > max_bytes:
        raise ValueError(f"the data URI has more than {max_bytes / 2**20:g} MB, which are not read")
    return data


def decode_base64(text: str) -> bytes | None:
    """The bytes that base64 text of either alphabet, with or without line breaks, stands for; else None."""
    if not _BASE64.fullmatch(text):
        return None
    compact = re.sub(r"\s", "", text).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def image_of_text(text: str) -> bytes | None:
    """The encoded image that a URL, a data URI or base64 text stands for; None if it is a path.

    Raises:
        ValueError, OSError: as `read_url` and `read_data_uri`.
    """
    url = as_url(text)
    if url is not None:
        return read_url(url)
    if text[:5].lower() == "data:":
        return read_data_uri(text)
    if len(text) < _SHORTEST_BASE64:
        return None
    try:
        if Path(text).exists():
            return None
    except (OSError, ValueError):  # too long for a file name
        pass
    return decode_base64(text)


def read_stdin(*, max_bytes: int = MAX_BYTES) -> bytes:
    """One encoded image from standard input.

    Raises:
        ValueError: it is a terminal, empty or too large.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError("standard input is a terminal; pipe an image into it: ... < photo.jpg")
    data = sys.stdin.buffer.read(max_bytes + 1)
    if not data:
        raise ValueError("standard input is empty")
    if len(data) > max_bytes:
        raise ValueError(f"standard input has more than {max_bytes / 2**20:g} MB, which are not read")
    return data


def read_list(path: str | Path) -> list[str]:
    """Paths and addresses from a UTF-8 text file, one a line; blank lines and lines from # on are left out.

    Relative paths are relative to the list's folder where such a file is there, else to the working folder.

    Raises:
        ValueError: it is no text, or names nothing.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no list of images: it is not UTF-8 text") from None
    entries = [line.strip() for line in lines]
    entries = [entry for entry in entries if entry and not entry.startswith("#")]
    if not entries:
        raise ValueError(f"{path} names no images")
    return [entry if is_elsewhere(entry) else str(_beside(path, entry)) for entry in entries]


def _beside(path: Path, entry: str) -> Path:
    beside = path.parent / entry
    return beside if beside.exists() else Path(entry)


class _RefusedAddressError(OSError):
    """An address that is not on the public internet."""


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet, not of this machine, a local network or a cloud."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _connect_public(host: str, port: int, timeout: Any) -> socket.socket:
    """A socket to a host on the public internet; the address that was checked is the one connected to."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise _RefusedAddressError(f"{host} is an address of this machine or of a local network")
    return socket.create_connection((addresses[0], port), timeout)


class _PublicHTTPConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = _connect_public(self.host, self.port, self.timeout)


class _PublicHTTPSConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        plain = _connect_public(self.host, self.port, self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class _HTTPHandler(urllib.request.HTTPHandler):
    def __init__(self, public_only: bool) -> None:
        super().__init__()
        self.public_only = public_only

    def http_open(self, request: urllib.request.Request) -> Any:
        connection = _PublicHTTPConnection if self.public_only else http.client.HTTPConnection
        return self.do_open(connection, request)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def __init__(self, public_only: bool) -> None:
        super().__init__()
        self.public_only = public_only

    def https_open(self, request: urllib.request.Request) -> Any:
        return (
            self.do_open(_PublicHTTPSConnection, request) if self.public_only else super().https_open(request)
        )


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if as_url(newurl) is None:
            raise _RefusedAddressError(f"it leads to {shorten(newurl)}, which is no web address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
