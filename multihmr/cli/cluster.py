"""multihmr cluster: predict whole data sets into Parquet, on this machine or a Ray cluster."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from tqdm import tqdm

from .arguments import add_fields, image_size_flag, model_flag, padding_flag, smplx_flag
from .main import clean, fail, people_text, plural

if TYPE_CHECKING:
    from ..cluster import Report


def add_flags(parser: argparse.ArgumentParser) -> None:
    from ..cluster import Settings

    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SRC",
        help="pictures, folders, globs, WebDataset shards (.tar), tables (.parquet), or URLs of them (s3://...)",
    )
    parser.add_argument(
        "--out", required=True, metavar="DST", help="output folder or URL of the tables (required)"
    )
    model_flag(parser)
    smplx_flag(parser)
    image_size_flag(parser)
    padding_flag(parser)
    add_fields(parser, Settings)


def run(args: argparse.Namespace) -> int:
    """Predict what is not done yet; 0 if every input has a result or a reason why not."""
    from ..cluster import Settings, predict_dataset
    from ..model import load_model

    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
    names = ("smplx", "image_size", "padding")
    model = load_model(args.model, device="cpu", **{name: getattr(args, name) for name in names})
    with tqdm(unit="picture", disable=None) as bar:

        def watch(report: Report) -> None:
            bar.set_postfix(people=report.people, bad=report.bad, refresh=False)
            bar.update(report.pictures - bar.n)

        report = predict_dataset(args.sources, args.out, model=model, settings=settings, watch=watch)
    print(clean(_summary(report)))
    for reason in report.reasons:
        print(clean(f"  {reason}"), file=sys.stderr)
    if report.bad > len(report.reasons):
        print(f"  and {report.bad - len(report.reasons)} more: see {args.out}/bad", file=sys.stderr)
    if report.missing:
        return fail(f"{plural(report.missing, 'input')} without a result; run the same again to do them")
    return 0


def _summary(report: Report) -> str:
    counts = plural(report.pictures, "picture"), people_text(report.people), plural(report.bad, "bad input")
    words = ", ".join(counts)
    if report.before:
        words += f"; {report.before} done earlier"
    if report.pictures:
        words += f"; {report.seconds:.0f} s, {report.rate:.2f} pictures per second"
        words += f", {report.rate_of_worker:.2f} per working worker of {report.workers}"
    return words
