"""`load_model` and `save_model`: models from names and files, and files from models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from ..networks.base import Network
from ..runtime.devices import CPU_BACKENDS, dtype_of_half
from .base import Model
from .preparation import prepare_network


def load_model(
    name: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str = "auto",
    smplx: str | os.PathLike[str] | None = None,
    backend: str = "eager",
    calibrate: str | os.PathLike[str] | None = None,
    attention: str = "torch",
    image_size: int | None = None,
    padding: Literal["whole", "thin"] = "whole",
    threads: int | None = None,
    half: torch.dtype | bool | None = None,
) -> Model:
    """A model ready to predict: the bundled default, or the one that `name` names.

    Args:
        name: a release of `list_models` ("multiHMR_896_L", in any case, or "896_L"), fetched into
            the cache folder on first use; a path to a .safetensors or an official .pt file; or
            "hf:owner/repo" or "hf:owner/repo@revision" for a repository on the Hugging Face Hub. A string
            that is both a release and a file here is refused: "release:NAME" and "./NAME" are the two
            spellings.
        device: None picks cuda, else mps, else cpu.
        dtype: precision of the backbone, while all that carries metres stays float32. "auto": float16 on
            cuda, float32 elsewhere; "fast": also bfloat16 on CPUs that multiply it (avx512_bf16, AMX), for
            networks on DINOv2 and for the ViT blocks of the bundled default, which moves vertices by
            millimetres (docs/speed.md); or torch.float32,
            torch.float16, torch.bfloat16, or their names.
        smplx: SMPLX_NEUTRAL.npz or its folder, for models with that body; None looks as `find_smplx` does.
        backend: what computes the backbone in prediction: "eager" is torch as it stands, "compile"
            torch.compile; on a CPU "onnxruntime", "openvino" or "openvino-int8", which need
            multihmr[export]. What they need is made at first and kept in the cache folder. On an NVIDIA GPU
            "cudagraph" records whole predictions, pixels to people, and replays them; "cudagraph-compile"
            records what torch.compile makes of them, "cudagraph-float8" with products of 8-bit floats (Hopper
            and later, dtype=torch.bfloat16). These hold for predict* alone, not for `model(images, K)`.
        calibrate: for "openvino-int8" at first: a folder of some hundred pictures, or of shards. 8 bits are
            for networks on DINOv2; the bundled default, whose people they move by decimetres, refuses them.
        attention: kernels of the ViT's self-attention: "torch", or "xformers", which needs
            multihmr[xformers] and a CUDA device.
        image_size: longer side of the network's input [pixels], a multiple of 32, of networks that take
            windows of any shape, as the bundled default. None is the size of training, which finds most
            people; smaller is faster and moves people away (docs/guides/small_people.md).
        padding: of networks on DINOv2, which see a picture in a square. "whole" computes all of the padding,
            as they were trained; "thin" a sixteenth of it with sixteen times the weight, which for a picture
            of 16:9 takes about 0.6 of the time and moves vertices by some millimetres, measured on random
            weights (docs/speed.md).
        threads: of this process that compute on the CPU, in torch and the backend: torch.set_num_threads.
            None leaves torch's own choice, which is all cores, mostly the fastest on a busy machine as well
            (docs/speed.md).
        half: deprecated, as `dtype`; True: float16, on a CPU bfloat16; False: float32.

    Returns:
        A Model; a TopDownModel for networks of one person's crop.

    Raises:
        ValueError: the name, an option or the file is wrong.
        ImportError: the backend's packages are missing.
        FileNotFoundError: there is no such file, or no SMPL-X file; checked before anything is fetched.
        ConnectionError: no address gave the file.
        OSError: it cannot be written to the cache folder.

    Examples:
        >>> from multihmr import load_model
        >>> load_model(device="cpu").body.name
        'anny'
    """
    if half is not None:
        dtype = dtype_of_half(half, "cpu" if device is None and backend in CPU_BACKENDS else device)
    prepared = prepare_network(
        name,
        device=device,
        dtype=dtype,
        smplx=smplx,
        backend=backend,
        calibrate=calibrate,
        attention=attention,
        image_size=image_size,
        padding=padding,
        threads=threads,
    )
    return Model._of_prepared(prepared)


def save_model(
    model: Model | Network,
    path: str | os.PathLike[str],
    *,
    half: bool = False,
    small: bool = False,
    **metadata: str,
) -> Path:
    """Write a model or a network as one safetensors file that `load_model` reads.

    Args:
        model: whose network is written.
        path: of the file.
        half: store floats with 16 bits.
        small: matrices with 8 bits a number and a scale for each row, the rest as `half` says; they are read
            as float32 again.
        **metadata: text for the header, as licence="CC0-1.0" or source="..."; the licence is the model's
            own where none is given.

    Returns:
        The path.

    Raises:
        ValueError: a number is not finite, or does not fit into 16 bits.
    """
    from ..hub.loading import save_network

    if not isinstance(model, Model):
        return save_network(model, path, half=half, small=small, **metadata)
    metadata = {"licence": model.licence, **metadata}
    return save_network(model.network, path, half=half, small=small, **metadata)
