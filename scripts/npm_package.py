"""Files in an npm package that was fetched with `npm pack`."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_package(path: Path, name: str, version: str) -> Iterator[Callable[[str], bytes]]:
    """What reads a file of the package by its name.

    ValueError: it is no such package, of another version, or lacks a file.
    """
    try:
        with tarfile.open(path) as package:

            def read(member: str) -> bytes:
                try:
                    file = package.extractfile(member)
                except KeyError:
                    file = None
                if file is None:
                    raise ValueError(f"there is no {member} in the package: it is another one")
                return file.read()

            about = json.loads(read("package/package.json"))
            if (about.get("name"), about.get("version")) != (name, version):
                raise ValueError(
                    f"{path} is {about.get('name')} {about.get('version')}, expected {name} {version}"
                )
            yield read
    except (tarfile.TarError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no npm package: {error}") from error
