"""multihmr models: list the models known by name."""

from __future__ import annotations

import argparse


def add_flags(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    """One line per release."""
    from ..hub.releases import DEFAULT, list_models

    for release in list_models():
        mark = " (default)" if release.name == DEFAULT else ""
        facts = f"body {release.body}, {release.licence}, {release.size_label}"
        print(f"{release.name}{mark}  {facts}: {release.description}")
    return 0
