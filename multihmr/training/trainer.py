"""One readable loop: TrainConfig in, weights out. `multihmr train` is this and nothing more."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from tqdm import tqdm

from ..bodies.body import Body
from ..bodies.joints import body_joints
from ..data.augment import augment
from ..data.sample import Sample
from ..data.shards import Shards
from ..hub import FAMILIES, load_body, load_model, pick_device, save_model
from ..humans import Topology
from ..model import Model
from ..networks.backbones import Hybrid
from .losses import MultiHMRLoss
from .targets import Batch, collate, make_targets

log = logging.getLogger(__name__)


def _flag(default: Any, says: str) -> Any:
    return field(default=default, metadata={"help": says})


@dataclass(frozen=True)
class TrainConfig:
    """Every field is a flag of `multihmr train`."""

    data: str = field(
        metadata={"help": "folder of shards, as `multihmr synth` writes them; several with commas"}
    )
    out: str = _flag("runs/multihmr", "for checkpoints, TensorBoard, and weights.safetensors at the end")
    backbone: str = _flag("hybrid_lite0", "hybrid_lite0, dinov2_vits14, dinov2_vitb14 or dinov2_vitl14")
    image_size: int = _flag(320, "side of the square that the network looks at, in pixels")
    init: str = _flag("", "model or weights to start from; else the backbone's public weights")
    steps: int = _flag(30_000, "of the optimiser")
    batch_size: int = _flag(16, "pictures a step, of all processes together")
    lr: float = _flag(5e-4, "learning rate after the warm-up")
    backbone_lr: float = _flag(0.5, "factor on it for what was pretrained")
    warmup: int = _flag(300, "steps")
    weight_decay: float = _flag(0.02, "of matrices")
    clip: float = _flag(5.0, "norm to which gradients are cut")
    ema: float = _flag(0.999, "memory of the averaged weights, which are the ones written out")
    freeze_stages: int = _flag(3, "first stages of the hybrid's stem that stay as ImageNet left them")
    vertices: int = _flag(900, "of the body's vertices, how many the losses look at")
    read_joints: bool = _flag(True, "let the network read the body's joints off the patches (reader.py)")
    workers: int = _flag(1, "processes that read pictures")
    seed: int = _flag(0, "of weights, order and augmentation")
    half: bool = _flag(True, "bfloat16 in the backbone")
    save_every: int = _flag(500, "steps between checkpoints")
    licence: str = _flag("unknown", "of the weights, written into their file")
    device: str = _flag("", "cpu, cuda, cuda:1, mps")


class Stream(Dataset[Sample]):
    """Sample number g of an endless training run: its picture and augmentation follow from g and seed.

    Stateless, so that a resumed run sees exactly what an uninterrupted one would have seen.
    """

    def __init__(self, sources: list[Shards], image_size: int, topology: Topology, seed: int) -> None:
        self.samples: ConcatDataset[Sample] = ConcatDataset(cast(Any, sources))
        self.image_size = image_size
        self.topology = topology
        self.seed = seed

    def __getitem__(self, g: int) -> Sample:
        epoch, position = divmod(g, len(self.samples))
        index = int(_order(self.seed, epoch, len(self.samples))[position])
        rng = np.random.default_rng((self.seed, 1, g))
        return augment(self.samples[index], self.image_size, rng, self.topology)


def train(config: TrainConfig, *, progress: bool | None = None) -> Path:
    """Train (or go on, if `out` holds a checkpoint) and return the path of the weights that came out.

    Started by `torchrun --nproc-per-node N -m multihmr train ...`, the processes share each step's pictures
    and all hold the same weights; the first one writes.

    Raises:
        FloatingPointError: a loss term is not finite; it and the samples are named.
    """
    torch.manual_seed(config.seed)
    device = pick_device(config.device or None)
    processes = Processes.join(device)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    model = _build(config).to(device)
    state = TrainState(model, config)
    if (out / "checkpoint.pt").exists():
        state.load(out / "checkpoint.pt")
        log.info("going on from step %d", state.step)
    shared = processes.share(Objective(model).to(device))
    writer = _summary_writer(out) if processes.first else None
    quiet = not processes.first or (None if progress is None else not progress)
    bar = tqdm(total=config.steps, initial=state.step, disable=quiet)
    for batch in _batches(config, model, state.step, processes):
        terms = train_step(state, shared, batch.to(device))
        bar.update()
        if writer is not None and state.step % 20 == 0:
            bar.set_postfix(loss=f"{terms['total']:.2f}", refresh=False)
            for name, value in terms.items():
                writer.add_scalar(name, value, state.step)
        if writer is not None and state.step % config.save_every == 0:
            state.save(out / "checkpoint.pt")
            log.info("step %d: %s", state.step, {k: round(v, 3) for k, v in terms.items()})
    bar.close()
    path = out / "weights.safetensors"
    if writer is not None:
        writer.close()
        state.save(out / "checkpoint.pt")
        unmoved = unmoved_names(_sources(config), model.body.topology)
        model.config = replace(model.config, unpredicted=unmoved)
        export(state, path, licence=config.licence)
    processes.leave()
    return path


@dataclass(frozen=True)
class Processes:
    """The processes of one training run; alone unless `torchrun` started several."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def join(device: torch.device) -> Processes:
        """Meet the others that torchrun started."""
        if not distributed.is_torchelastic_launched():
            return Processes()
        if device.type == "cuda":
            torch.cuda.set_device(distributed.get_node_local_rank())
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return Processes(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over all processes."""
        if self.count == 1:
            return module
        return nn.parallel.DistributedDataParallel(module)

    def leave(self) -> None:
        if self.count > 1:
            distributed.barrier()
            distributed.destroy_process_group()


class Objective(nn.Module):
    """Batch in, weighted loss terms by name out: the network at the true cells against the truth."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.criterion = MultiHMRLoss(model.body, model.config.image_size, model.config.read_joints)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        targets = make_targets(batch, self.model.body, self.model.backbone.patch)
        pred = self.model(batch.images_B3HW(), batch.K_B33, centers=targets.centers)
        return self.criterion(pred, targets)


class TrainState:
    """What a checkpoint holds: weights, their moving average, optimiser, step."""

    def __init__(self, model: Model, config: TrainConfig) -> None:
        self.model = model.train()
        self.config = config
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(model, config), lr=config.lr, weight_decay=config.weight_decay
        )
        self.ema = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def learning_rate_factor(self) -> float:
        """Linear warm-up, then a cosine down to 1 %."""
        progress = (self.step - self.config.warmup) / max(1, self.config.steps - self.config.warmup)
        if progress < 0:
            return (self.step + 1) / self.config.warmup
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    @torch.no_grad()
    def update_ema(self) -> None:
        # A short memory at first, so that the average does not drag the random start along.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.ema[name].lerp_(value, 1 - decay)
            else:
                self.ema[name].copy_(value)

    def save(self, path: Path) -> None:
        content = {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "config": asdict(self.config),
        }
        temporary = path.with_suffix(".tmp")
        torch.save(content, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        content = torch.load(path, map_location=self.model.device, weights_only=True)
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.ema = content["ema"]
        self.step = content["step"]


def train_step(state: TrainState, objective: nn.Module, batch: Batch) -> dict[str, float]:
    """One step of the optimiser on an `Objective`; returns the weighted loss terms and their "total"."""
    for group in state.optimizer.param_groups:
        group["lr"] = state.config.lr * group["factor"] * state.learning_rate_factor()
    terms = objective(batch)
    total = torch.stack(list(terms.values())).sum()
    values = {name: term.item() for name, term in terms.items()}
    _check_finite(values, state.step)
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), state.config.clip)
    state.optimizer.step()
    state.step += 1
    state.update_ema()
    return {**values, "total": total.item()}


def export(state: TrainState, path: Path, **metadata: str) -> Path:
    """Write the averaged weights as a checkpoint for `load_model`, in half precision."""
    trained = {name: value.clone() for name, value in state.model.state_dict().items()}
    state.model.load_state_dict(state.ema)
    save_model(state.model, path, half=True, source="multihmr train", **metadata)
    state.model.load_state_dict(trained)
    return path


def unmoved_names(sources: Iterable[Shards], topology: Topology, every: int = 10) -> tuple[str, ...]:
    """Joints and facial actions that no person of every tenth sample moves: what nobody can learn from these.

    A checkpoint carries them as `unpredicted`, so that users know what it says nothing about.
    """
    turned = np.zeros(len(topology.joint_names), dtype=bool)
    acted = np.zeros(len(topology.expression_names), dtype=bool)
    for shards in sources:
        for index in range(0, len(shards), every):
            sample = shards[index]
            if len(sample):
                turned |= np.abs(sample.pose - np.eye(3)).max((0, 2, 3)) > 1e-3
                acted |= (sample.expression > 1e-3).any(0)
    joints = [name for name, moves in zip(topology.joint_names, turned, strict=True) if not moves]
    actions = [name for name, moves in zip(topology.expression_names, acted, strict=True) if not moves]
    return (*joints, *actions)


def vertex_sample(body: Body, count: int, seed: int = 0) -> np.ndarray:
    """Vertices for the losses, spread over the surface: each is drawn with the area around it.

    The mesh is fine at hands and face; drawing by area makes a square centimetre count the same everywhere.
    """
    with torch.no_grad():
        vertices = body(
            body.mean_pose_R33[None], body.mean_shape_S[None], torch.zeros(1, body.expression_count)
        )
    corners_F33 = vertices.vertices_PV3[0].numpy()[body.topology.faces]
    edges = corners_F33[:, 1:] - corners_F33[:, :1]
    area_F = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1)
    area_V = np.zeros(len(vertices.vertices_PV3[0]))
    np.add.at(area_V, body.topology.faces, area_F[:, None])
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(len(area_V), min(count, len(area_V)), replace=False, p=area_V / area_V.sum()))


def _build(config: TrainConfig) -> Model:
    network, make_config = cast(Any, FAMILIES["multihmr"])()
    body = cast(Any, load_body("anny"))
    if config.init:
        started = load_model(config.init, device="cpu")
        model_config = replace(started.config, image_size=config.image_size)
    else:
        topology = body.topology
        read = [topology.joint_names.index(name) for name in body_joints(topology)]
        model_config = make_config(
            backbone=config.backbone,
            image_size=config.image_size,
            read_joints=tuple(read) if config.read_joints else (),
        )
    model = network(
        model_config, body.with_vertices(vertex_sample(body, config.vertices)), pretrained=not config.init
    )
    if config.init:
        model.load_state_dict(_resize_tables(started.state_dict(), model.state_dict()))
    if isinstance(model.backbone, Hybrid):
        model.backbone.freeze(config.freeze_stages)
    model.backbone.half_dtype = torch.bfloat16 if config.half else None
    return model


def _resize_tables(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stretch the head's tables of rows and columns, so that a run may go on at another image size."""
    return {
        name: value
        if value.shape == wanted[name].shape
        else F.interpolate(value.T[None], size=len(wanted[name]), mode="linear", align_corners=False)[0].T
        for name, value in weights.items()
    }


def _parameter_groups(model: Model, config: TrainConfig) -> list[dict]:
    """Pretrained parts learn slower; biases, norms and tables are not decayed."""
    pretrained = ("backbone.stem.", "backbone.vit.")
    groups: dict[tuple[bool, bool], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and "rows" not in name and "cols" not in name
            groups.setdefault((name.startswith(pretrained), decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "factor": config.backbone_lr if slow else 1.0,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (slow, decays), parameters in groups.items()
    ]


def _batches(config: TrainConfig, model: Model, start: int, processes: Processes) -> Iterator[Batch]:
    """This process' share of the pictures of each step."""
    if config.batch_size % processes.count:
        raise ValueError(
            f"{processes.count} processes cannot share {config.batch_size} pictures a step evenly"
        )
    stream = Stream(_sources(config), model.config.image_size, model.body.topology, config.seed)
    first = start * config.batch_size + processes.rank
    numbers = range(first, config.steps * config.batch_size, processes.count)
    loader = DataLoader(
        stream,
        batch_size=config.batch_size // processes.count,
        sampler=numbers,  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
    )
    return iter(loader)


def _sources(config: TrainConfig) -> list[Shards]:
    return [Shards(root) for root in config.data.split(",")]


_orders: dict[tuple[int, int, int], np.ndarray] = {}


def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    if (seed, epoch, count) not in _orders:
        _orders.clear()
        _orders[seed, epoch, count] = np.random.default_rng((seed, 0, epoch)).permutation(count)
    return _orders[seed, epoch, count]


def _summary_writer(out: Path):  # type: ignore[no-untyped-def]
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("training writes TensorBoard logs: pip install 'multihmr[train]'") from error
    return SummaryWriter(str(out))


def _check_finite(values: dict[str, float], step: int) -> None:
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise FloatingPointError(
            f"loss term {', '.join(wrong)} is not finite at step {step}; lower the learning rate or look at "
            f"the samples of this step (numbers {step} x batch_size onwards)"
        )
