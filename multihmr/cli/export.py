"""multihmr export: write a model as one file, from pixels to people, for programs without this package."""

from __future__ import annotations

import argparse

from .arguments import file_path, image_size_flag, model_flag, positive, smplx_flag


def add_flags(parser: argparse.ArgumentParser) -> None:
    model_flag(parser)
    parser.add_argument(
        "--out", type=file_path, required=True, metavar="FILE", help=".onnx, .xml or .pt2 (required)"
    )
    parser.add_argument("--format", help="onnx, openvino or torch-export (default: by the ending of FILE)")
    parser.add_argument(
        "--people", type=positive, default=20, metavar="N", help="at most in one image (default: %(default)s)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="least score of a person, 0 to 1, fixed in the file (default: the model's)",
    )
    parser.add_argument(
        "--vertices", action="store_true", help="write meshes, too (default: joints and parameters alone)"
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="quantise the backbone to 8 bits (openvino); needs --calibrate (default: not)",
    )
    parser.add_argument(
        "--calibrate",
        type=file_path,
        metavar="DIR",
        help="images or shards like those it will predict, for --int8 (default: none)",
    )
    image_size_flag(parser)
    smplx_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file and print what it holds."""
    from ..model import load_model
    from ..runtime.export import export_model, format_of

    format = format_of(args.out, args.format)
    if args.int8 != (args.calibrate is not None):
        raise ValueError("--int8 and --calibrate DIR go together: give both or neither")
    args.out.parent.mkdir(parents=True, exist_ok=True)  # as every command does for --out
    model = load_model(args.model, device="cpu", smplx=args.smplx, image_size=args.image_size)
    path = export_model(
        model,
        args.out,
        people=args.people,
        threshold=args.threshold,
        vertices=args.vertices,
        calibrate=args.calibrate,
    )
    size = model.config.image_size
    print(
        f"{path}: {format}, input of {size}x{size} pixels, at most {args.people} people an image, "
        f"{'with' if args.vertices else 'without'} vertices; {model.licence}"
    )
    return 0
