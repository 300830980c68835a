"""Training loop of `multihmr train`: data, optimizer steps, checkpoints, and the export of weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..bodies.loading import float32_on_cpu
from ..bodies.topology import Topology
from ..data.augment import Augmentation, augment
from ..data.mixture import Mixture, Source, for_body, open_sources
from ..data.person_crops import one_person, one_person_twice
from ..hub.loading import save_network
from ..model import Model
from ..networks.base import Network
from ..networks.glnet import GLNet
from ..networks.multihmr import WINDOW_MULTIPLE
from ..runtime.devices import pick_device
from .build_model import STARTS, build
from .collate import Batch
from .config import TrainConfig
from .dataloader import TrainDataset, batches, window_shapes, worker_death_reported
from .distributed import Distributed, StopSignal
from .glnet import GLNetObjective
from .logger import Logger
from .losses import LossWeights, MultiHMRLoss
from .state import TrainState
from .targets import Targets, make_targets, point_names
from .validity_masks import Dependencies

log = logging.getLogger(__name__)

REST_JOINTS_WEIGHT = 40.0  # of the shape's own loss, as of posed joints


@float32_on_cpu()
def train(config: TrainConfig, *, model: Model | Network | None = None, progress: bool | None = None) -> Path:
    """Train a model, or resume the run whose checkpoint is in `config.out`.

    Started by `torchrun --nproc-per-node N -m multihmr train ...`, the processes share each step's pictures
    and hold the same weights; the first one writes files. The number of processes and of accumulated batches
    does not change the weights beyond rounding, and may change when a run is resumed.

    Args:
        config: settings of the run.
        model: the network to train, instead of one that `config` describes.
        progress: whether to show a progress bar; None shows one on a terminal.

    Returns:
        Path of the exported weights, config.out/weights.safetensors.

    Raises:
        FloatingPointError: a loss term is not finite; the message names it and the samples.
        ValueError: too many samples cannot be read, a sample does not fit the model, or a setting is invalid.
        ChildProcessError: a data loading process died.
        OSError: a checkpoint cannot be written; the previous one is intact.
        KeyboardInterrupt: SIGTERM or SIGINT was received; the step was finished and saved.
    """
    torch.manual_seed(config.seed)
    device = pick_device(config.device or None)
    distributed = Distributed.join(device)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    network = model.network if isinstance(model, Model) else model
    crops = (network or config).family == "glnet"
    if config.paired_crops and not crops:
        raise ValueError("--paired-crops are two crops of one person; take --family glnet")
    sources = open_sources(config.data, config.root, joints=crops)
    if network is None:
        network = build(config, {source.samples[0].keypoint_set for source in sources})
    state = TrainState(network.to(device), config)
    if (out / "checkpoint.pt").exists():
        state.load(out / "checkpoint.pt")
        log.info("resuming from step %d", state.step)
    topology = state.model.body.topology
    check_sources(sources, topology, keypoints_only=config.keypoints_only)
    dataset = TrainDataset(
        Mixture(sources, config.seed),
        topology,
        state.model.config.image_size,
        Augmentation(
            focal_jitter_prob=config.focal_jitter_prob,
            person_crop_prob=config.person_crop_prob,
            rotation_prob=config.rotation_prob,
            full_rotation_prob=config.full_rotation_prob,
            occlusion_prob=config.occlusion_prob,
            camera_effects_prob=config.camera_effects_prob,
        ),
        keypoints_only=config.keypoints_only,
        view=(one_person_twice if config.paired_crops else one_person) if crops else augment,
        views=1 + config.paired_crops,
        shapes=_window_shapes(state.model),
        samples_a_step=config.batch_size // (1 + config.paired_crops),
    )
    with StopSignal() as stop, worker_death_reported():
        _run_steps(state, dataset, distributed, stop, progress)
    path = out / "weights.safetensors"
    if distributed.is_main:
        export(state, path, licence=config.licence)
    distributed.close()
    return path


def _window_shapes(network: Network) -> list[tuple[int, int]]:
    """Shapes of the windows to train on; none for networks of square windows."""
    if not getattr(network.config, "rectangular", False):
        return []
    return window_shapes(network.config.image_size, WINDOW_MULTIPLE)


def _run_steps(
    state: TrainState,
    dataset: TrainDataset,
    distributed: Distributed,
    stop: StopSignal,
    progress: bool | None,
) -> None:
    """Run the remaining steps; the last one is saved, also when a signal stops the run."""
    config, device = state.config, state.model.device
    out = Path(config.out)
    objective = objective_of(
        state.model,
        mirror_weight=config.mirror_weight,
        shape_from_mesh=config.shape_from_mesh,
        distillation_weight=config.distillation_weight,
    )
    wrapped = distributed.wrap(objective.to(device))
    steps = batches(dataset, config, state.step, distributed, pinned=device.type == "cuda")
    saved_at, stopped = time.monotonic(), False
    with Logger(out, config, state.step, writes=distributed.is_main, bar=progress) as logger:
        for parts in logger.timed(steps):
            state.record_motion(parts)
            terms = train_step(state, wrapped, [part.to(device) for part in parts], distributed)
            logger.log_step(state.step, terms)
            stopped = distributed.any(bool(stop.received), device)
            last = stopped or state.step == config.steps
            if last or time.monotonic() - saved_at > config.save_seconds:
                if distributed.is_main:
                    state.save(out / "checkpoint.pt")
                    log.info("saved %s", logger.summary)
                saved_at = time.monotonic()
            if stopped:
                break
    if stopped:
        distributed.close()
        raise KeyboardInterrupt(
            f"stopped after step {state.step} of {config.steps}, which is saved in {out / 'checkpoint.pt'}; "
            "the same command resumes from there"
        )


class Objective(nn.Module):
    """Weighted loss terms of a batch, by name: the network at the true head cells against the targets.

    Args:
        model: to train.
        mirror_weight: as in TrainConfig.
        shape_from_mesh: as in TrainConfig.
        distillation_weight: as in TrainConfig.
    """

    model: Any

    def __init__(
        self,
        model: Network,
        *,
        mirror_weight: float = 0.0,
        shape_from_mesh: bool = True,
        distillation_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.model.shape_from_mesh = shape_from_mesh
        self.mirror_weight = mirror_weight
        self.distillation_weight = distillation_weight
        self.dependencies = Dependencies(model.body.topology)
        weights = LossWeights() if shape_from_mesh else LossWeights(rest_joints=REST_JOINTS_WEIGHT)
        self.criterion = MultiHMRLoss(model.body, model.config.image_size, model.config.read_joints, weights)

    def targets(self, batch: Batch) -> Targets:
        return make_targets(batch, self.model.body, self.model.backbone.patch, self.dependencies)

    def forward(
        self, batch: Batch, true: Targets | None = None, counts: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """true: `self.targets(batch)`, if computed already; counts: as for `MultiHMRLoss.forward`."""
        true = true or self.targets(batch)
        counts = counts or self.criterion.counts(true)
        images_B3HW = batch.images_B3HW()
        pred = self.model(images_B3HW, batch.K_B33, centers=true.centers)
        terms = self.criterion(pred, true, counts)
        drift_B = getattr(self.model.backbone, "drift_B", None)  # now: images mirrored below set their own
        if drift_B is not None:
            terms["distillation"] = self.distillation_weight * drift_B.sum() / counts["pictures"]
        if self.mirror_weight:
            unknown_B = ~true.known.camera_B
            errors_B = self._mirror_errors(images_B3HW[unknown_B], pred.fov_B[unknown_B])
            terms["mirror"] = self.mirror_weight * errors_B.sum() / counts["mirror"].clamp(min=1)
        return terms

    def _mirror_errors(self, images_B3HW: Tensor, fov_B: Tensor) -> Tensor:
        """(B,) how far the fields of view of pictures and of their mirror images are apart [log]."""
        if not len(images_B3HW):
            return fov_B.log()  # empty, and connected to the network
        return (fov_B.log() - self.model.field_of_view(images_B3HW.flip(-1)).log()).abs()


def objective_of(
    model: Network,
    *,
    mirror_weight: float = 0.0,
    shape_from_mesh: bool = True,
    distillation_weight: float = 0.0,
) -> nn.Module:
    """The training objective of a model's family.

    Raises:
        ValueError: `mirror_weight` or `shape_from_mesh` is given for a GLNet, which has neither.
    """
    if isinstance(model, GLNet):
        if mirror_weight:
            raise ValueError("--mirror-weight is for networks that predict the camera; GLNet is given one")
        if not shape_from_mesh:
            raise ValueError("--no-shape-from-mesh is for --family multihmr")
        return GLNetObjective(model)
    return Objective(
        model,
        mirror_weight=mirror_weight,
        shape_from_mesh=shape_from_mesh,
        distillation_weight=distillation_weight,
    )


SINGLE_PROCESS = Distributed()


def train_step(
    state: TrainState, wrapped: nn.Module, parts: Sequence[Batch], distributed: Distributed = SINGLE_PROCESS
) -> dict[str, float]:
    """One optimizer step on all batches of all processes.

    Args:
        state: model, optimizer and averages; changed in place.
        wrapped: an `Objective`, as `Distributed.wrap` returns it.
        parts: this process' batches of the step.
        distributed: the process group.

    Returns:
        Weighted loss terms of the whole step, their "total", the number of people "left_out" (without a
        target) and of samples "dropped" (unreadable).

    Raises:
        FloatingPointError: a loss term or the gradient is not finite.
    """
    objective: Any = getattr(wrapped, "module", wrapped)  # without DistributedDataParallel
    truths = [objective.targets(part) for part in parts]
    counts = _counts(objective, truths, distributed)
    state.optimizer.zero_grad(set_to_none=True)
    names: list[str] = []
    sums = torch.zeros(0)
    for part, true in zip(parts, truths, strict=True):
        with distributed.keep_gradients(wrapped, keep=part is not parts[-1]):
            terms = wrapped(part, true, counts)
            names, values = list(terms), torch.stack(list(terms.values()))
            if not values.isfinite().all():
                raise FloatingPointError(_culprits(objective, part, terms, state.step))
            # Gradients are averaged over processes; the step needs their sum.
            state.scaler.scale(values.sum() * distributed.count).backward()
        sums = values.detach() + (sums if len(sums) else 0)
    _update(state, parts)
    lost = [sum(true.left_out for true in truths), sum(len(part.dropped) for part in parts)]
    *numbers, people, samples = distributed.sum(torch.cat([sums, sums.new_tensor(lost)])).tolist()
    terms = dict(zip(names, numbers, strict=True))
    return {**terms, "total": sum(numbers), "left_out": people, "dropped": samples}


def _counts(objective: Any, truths: Sequence[Targets], distributed: Distributed) -> dict[str, Tensor]:
    """Normaliser of each loss term: counts over all batches of all processes of the step."""
    of_parts = [objective.criterion.counts(true) for true in truths]
    stacked = torch.stack([torch.stack(list(counts.values())).float() for counts in of_parts])
    return dict(zip(of_parts[0], distributed.sum(stacked.sum(0)), strict=True))


def _update(state: TrainState, parts: Sequence[Batch]) -> None:
    """Optimizer step, and update of the averaged weights."""
    for group in state.optimizer.param_groups:
        group["lr"] = state.config.lr * group["factor"] * state.learning_rate_factor()
    state.scaler.unscale_(state.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), state.config.grad_clip_norm)
    # With fp16 an infinite gradient is usual: the scaler skips the step and lowers its scale.
    scaling = state.scaler.is_enabled() and state.scaler.get_scale() >= 1
    if not scaling and not norm.isfinite():
        names = ", ".join(f"'{name}'" for part in parts for name in part.names)
        raise FloatingPointError(
            f"the gradient is not finite at step {state.step}, though the loss is; lower the learning rate, "
            f"take --precision bf16, or look at the samples of this step: {names}"
        )
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    state.update_ema()


@torch.no_grad()
def _culprits(objective: Any, batch: Batch, terms: Mapping[str, Tensor], step: int) -> str:
    """Error message for a loss that is not finite: the terms, and the samples that give it on their own."""
    wrong = ", ".join(name for name, term in terms.items() if not term.isfinite())
    names = []
    for i, name in enumerate(batch.names):
        if not all(term.isfinite() for term in objective(batch.single(i)).values()):
            names.append(f"'{name}'")
    if 0 < len(names) < len(batch):
        samples = ", ".join(names)
        return f"loss term {wrong} is not finite at step {step} because of {samples}; repair or remove them"
    everyone = ", ".join(f"'{name}'" for name in batch.names)
    return (
        f"loss term {wrong} is not finite at step {step}; lower the learning rate, or look at the samples of "
        f"this batch: {everyone}"
    )


def export(state: TrainState, path: Path, licence: str = "unknown") -> Path:
    """Write the averaged weights for `load_model`, in half precision.

    Joints and facial actions that never moved in training become `unpredicted`, unless the model that
    training started from predicted them.

    Returns:
        The path.
    """
    unmoved = state.unmoved_names()
    if state.config.init not in STARTS:
        unmoved = tuple(name for name in unmoved if name in state.model.config.unpredicted)
    state.model.config = replace(state.model.config, unpredicted=unmoved)
    trained = {name: value.clone() for name, value in state.model.state_dict().items()}
    state.model.load_state_dict(state.ema)
    save_network(state.model, path, half=True, source="multihmr train", licence=licence)
    state.model.load_state_dict(trained)
    return path


def check_sources(sources: Sequence[Source], topology: Topology, *, keypoints_only: bool = False) -> None:
    """Check that the first sample of each source fits a model with this body.

    Raises:
        ValueError: one does not; the message names its source.
    """
    for source in sources:
        sample = source.samples[0]
        try:
            for_body(sample, topology, keypoints_only=keypoints_only)
            if sample.keypoints_2d is not None or sample.keypoints_3d is not None:
                point_names(topology, sample.keypoint_set)
        except ValueError as error:
            raise ValueError(f"{source.name} cannot be used for training: {error}") from error
