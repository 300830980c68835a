"""The official network's golden arrays (README.md beside this) through conversion and our forward pass."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from multihmr import load_humans, load_model
from multihmr.bodies.loading import load_body
from multihmr.cli.main import run
from multihmr.evaluation.matching import match_released, released_scores
from multihmr.geometry import code_to_depth, fov_to_focal, released_code_to_depth, rot6d_to_rotmat
from multihmr.hub.checkpoint import Checkpoint, config_of, load_weights, own_state
from multihmr.hub.official_converter import convert_state, position_table
from multihmr.humans import project, rotmat_to_rotvec
from multihmr.model import Model, save_model
from multihmr.networks.base import Predictions, own_camera
from multihmr.networks.camera_embedding import RayEmbedding
from multihmr.networks.detection import Centers, find_centers
from multihmr.networks.registry import FAMILIES
from multihmr.preprocessing.letterbox import Letterbox
from multihmr.training.losses import focal_errors, l1_errors, points_errors

from . import weights as W

HERE = Path(__file__).parent
FIXTURES = ["smplx_vits_448_single", "smplx_vits_448_batch2", "anny_vits_448_single", "anny_vits_448_batch2"]


def save_official(table: str, path: Path, **others: Any) -> Path:
    """A file as the official trainer writes it, with the generated weights."""
    state = {key: torch.from_numpy(array) for key, array in W.state_dict(str(HERE / table)).items()}
    torch.save({"model_state_dict": state, "epoch": 1, "iter": 2, **others}, path)
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, fake_smplx_file: Path) -> dict[str, Model]:
    """Both variants, built from the generated weights, converted by `multihmr convert`, loaded by name."""
    folder = tmp_path_factory.mktemp("official")
    loaded = {}
    for variant in ("smplx", "anny"):
        official = save_official(f"state_dict_{variant}_vits_448.json", folder / f"{variant}.pt")
        assert run(["convert", str(official), str(folder / f"{variant}.safetensors")]) == 0
        loaded[variant] = load_model(folder / f"{variant}.safetensors", device="cpu", smplx=fake_smplx_file)
    return loaded


Golden = tuple[Any, Model, Predictions, dict[str, Tensor]]


@pytest.fixture(scope="session", params=FIXTURES)
def golden(request: pytest.FixtureRequest, models: dict[str, Model]) -> Golden:
    """Their arrays, our model, what it says, and what went through its layers meanwhile."""
    arrays = np.load(HERE / f"{request.param}.npz")
    model = models[str(arrays["variant"])]
    images = torch.from_numpy(arrays["image_u8"]).movedim(-1, 1).float() / 255
    if "K" in arrays:
        K_B33 = torch.from_numpy(arrays["K"]).float()
    else:
        K_B33 = torch.full((len(images), 3, 3), math.nan)
    seen: dict[str, Tensor] = {}
    network: Any = model.network
    layers = network.head.layers if str(arrays["variant"]) == "smplx" else network.layers
    hooks = [layers[0].register_forward_pre_hook(lambda _, args: seen.update(into=args[0], context=args[2]))]
    for name, layer in (("first", layers[0]), ("last", layers[-1])):
        hooks.append(layer.register_forward_hook(lambda _, args, out, name=name: seen.update({name: out})))
    hooks.append(
        model.backbone.register_forward_hook(lambda _, args, out: seen.update(backbone=out.grid_BDhw))
    )
    with torch.inference_mode():
        said = model(images, K_B33, threshold=float(arrays["det_thresh"]))
    for hook in hooks:
        hook.remove()
    return arrays, model, said, seen


def close(ours: Any, theirs: np.ndarray, tolerance: float) -> None:
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def stats(points_PN3: Tensor) -> np.ndarray:
    x = points_PN3.double().numpy()
    parts = [x.mean(1), np.abs(x).mean(1), np.sqrt((x**2).mean(1)), x.min(1), x.max(1)]
    return np.stack(parts, axis=-1)


@pytest.mark.slow
def test_the_same_people_are_found(golden: Golden) -> None:
    arrays, _, said, _ = golden
    cells = torch.stack([said.centers.image_index_P, said.centers.row_P, said.centers.col_P], dim=1)
    np.testing.assert_array_equal(cells.numpy(), arrays["idx"])
    close(said.centers.scores_P, arrays["det_scores"], 2e-5)
    scores = said.logits_Bhw.sigmoid()
    kept = np.zeros_like(arrays["scores_nms"])
    kept[tuple(arrays["idx"].T)] = said.centers.scores_P
    above = arrays["scores_nms"] >= arrays["det_thresh"]
    close(kept, np.where(above, arrays["scores_nms"], 0), 2e-5)
    if "logits" in arrays:
        close(said.logits_Bhw, arrays["logits"], 1e-4)
    else:
        scores = scores.clamp(1e-4, 1 - 1e-4)
    close(scores, arrays["scores_raw"], 2e-5)


@pytest.mark.slow
def test_the_backbone_says_the_same(golden: Golden) -> None:
    arrays, _, _, seen = golden
    tokens_BND = seen["backbone"].flatten(2).transpose(1, 2)
    close(tokens_BND[:, ::37], arrays["tokens_sub"], 5e-5)
    close(stats(tokens_BND), arrays["tokens_stats"], 5e-5)


@pytest.mark.slow
def test_everybody_is_where_and_how_they_were(golden: Golden) -> None:
    arrays, model, said, _ = golden
    close(said.offset_P2, arrays["offset"], 2e-5)
    close(said.pose_PR33, arrays["rotmat"], 2e-5)
    close(rotmat_to_rotvec(said.pose_PR33.numpy()), arrays["rotvec"], 2e-5)
    close(said.shape_PS, arrays["shape"], 2e-5)
    close(said.translation_P3, arrays["transl"], 3e-4)
    close(said.translation_P3[:, 2:], arrays["dist"], 3e-4)
    close(said.joints_PJ3[:, model.body.pelvis_joint], arrays["transl_pelvis"].reshape(-1, 3), 3e-4)
    close(said.joints_PJ3, arrays["j3d"], 3e-4)
    # Of the two versions of Anny the older one is what the checkpoint was made with.
    vertices = "v3d_sub_anny031" if "v3d_sub_anny031" in arrays else "v3d_sub"
    close(said.vertices_PV3[:, ::50], arrays[vertices], 3e-4)
    close(stats(said.vertices_PV3), arrays[vertices.replace("sub", "stats")], 3e-4)
    K = said.K_B33[said.centers.image_index_P].numpy()
    for p, person in enumerate(said.centers.image_index_P):
        close(project(said.joints_PJ3[p].numpy(), K[p]), arrays["j2d"][p], 1e-2)
        close(project(said.translation_P3[p : p + 1].numpy(), K[p])[0], arrays["loc"][p], 5e-4)
        assert person == arrays["idx"][p, 0]
    if "v2d_sub_anny031" not in arrays and vertices == "v3d_sub":
        flat = np.stack([project(v[::50], k) for v, k in zip(said.vertices_PV3.numpy(), K, strict=True)])
        close(flat, arrays["v2d_sub"], 1e-2)


def test_what_only_one_variant_has(golden: Golden) -> None:
    arrays, model, said, _ = golden
    if str(arrays["variant"]) == "smplx":
        close(said.expression_PE, arrays["expression"], 2e-5)
        close(said.depth_code_P, arrays["cam"][:, 0], 2e-5)
        return
    size = float(model.config.image_size)
    reference = fov_to_focal(math.radians(60), size).log()
    close((reference - said.depth_code_P)[:, None], arrays["dist_raw"], 2e-5)
    close(said.fov_B[:, None], arrays["fov"], 5e-6)
    close(said.K_B33, arrays["K_used"], 1e-3)
    close(own_camera(said.fov_B, None, int(size)), arrays["K_regressed"], 1e-3)
    np.testing.assert_array_equal(said.translation_P3[:, 2].argsort(), arrays["order_by_depth"])


@pytest.mark.slow
def test_inside_the_heads(golden: Golden) -> None:
    arrays, model, said, seen = golden
    smplx = str(arrays["variant"]) == "smplx"
    network: Any = model.network
    counts = np.bincount(arrays["idx"][:, 0], minlength=len(arrays["image_u8"]))
    tokens = {name: seen[name] for name in ("into", "first", "last")}
    rows = {k: torch.cat([v[b, :n] for b, n in enumerate(counts)]) for k, v in tokens.items()}
    names = {"into": "hph_in", "first": "hph_l0", "last": "hph_out"}
    for ours, theirs in (names if smplx else {"first": "dec_l0", "last": "dec_out"}).items():
        close(rows[ours], arrays[theirs], 1e-4)
    if not smplx:
        close(seen["context"][:, ::37], arrays["dec_emb_sub"], 1e-4)
    else:
        rays = network.rays(said.K_B33, 32, 32, 14).movedim(1, -1)
        close(rays[:, ::5, ::5], arrays["cam_embed_sub"], 5e-5)


UNITS = np.load(HERE / "units.npz")


@pytest.mark.parametrize("name", [name for name in UNITS.files if name.startswith("pos_embed")])
def test_position_tables(name: str) -> None:
    table = torch.from_numpy(W.array("backbone.encoder.pos_embed", (1, 1370, 384)))
    height, width = (int(side) // 14 for side in name.removeprefix("pos_embed_").split("x"))
    close(position_table(table, height, width)[0, :, ::96], UNITS[name], 5e-5)


def test_rotations_depths_rays_and_peaks() -> None:
    six = torch.from_numpy(UNITS["rot6d_in"])[2:]  # the first two have no answer in theirs
    close(rot6d_to_rotmat(six), UNITS["rot6d_smplx"][2:], 2e-5)
    close(rotmat_to_rotvec(rot6d_to_rotmat(six).numpy()), UNITS["rotvec_smplx"][2:], 2e-5)
    close(rot6d_to_rotmat(six.unflatten(-1, (3, 2)).mT.flatten(-2)), UNITS["rot6d_anny"][2:], 2e-5)
    for focal, depth in zip(UNITS["depth_focal"], UNITS["depth_smplx"], strict=True):
        code = torch.from_numpy(UNITS["depth_in"])
        found = released_code_to_depth(code, torch.tensor(focal), float(UNITS["depth_img_size"]))
        np.testing.assert_allclose(found, depth, rtol=1e-5, atol=1e-6)
    size = float(UNITS["depth_img_size"])
    codes = fov_to_focal(math.radians(60), size).log() - torch.from_numpy(UNITS["depth_anny_in"])
    for focal, depth in zip(UNITS["depth_focal"], UNITS["depth_anny"], strict=True):
        np.testing.assert_allclose(code_to_depth(codes, torch.tensor(focal), size), depth, rtol=1e-5)
    rays = RayEmbedding(16, swapped=True)(torch.from_numpy(UNITS["camera_K"]).float(), 16, 16, 14)
    close(rays.movedim(1, -1), UNITS["camera_embed_16x16"], 5e-5)
    scores = torch.from_numpy(UNITS["detect_scores"])
    for kernel in range(1, 6):
        centers = find_centers(scores, threshold=float(UNITS["detect_thresh"]), nms_kernel=kernel)
        cells = torch.stack([centers.image_index_P, centers.row_P, centers.col_P], dim=1)
        np.testing.assert_array_equal(cells.numpy(), UNITS[f"detect_idx_nms{kernel}"])


@pytest.mark.parametrize("case", range(8))
def test_matching(case: int) -> None:
    found = match_released(UNITS[f"match{case}_pred"], UNITS[f"match{case}_gt"])
    np.testing.assert_array_equal(found.pairs, UNITS[f"match{case}_pairs"])
    np.testing.assert_array_equal(found.false, UNITS[f"match{case}_fp"])
    np.testing.assert_array_equal(found.missed, UNITS[f"match{case}_miss"])


def test_precision_recall_and_f1() -> None:
    found = [released_scores(*map(int, row)) for row in UNITS["prf_in"]]
    np.testing.assert_allclose(found, UNITS["prf_out"])


def test_loss_terms() -> None:
    """Ours are theirs: the same sums, to which we give other weights."""
    pred, true = (
        {
            name.removeprefix(f"loss_{side}_"): torch.from_numpy(UNITS[name])
            for name in UNITS.files
            if side in name
        }
        for side in ("pred", "gt")
    )
    scores = pred["scores"][..., 0]
    cells = focal_errors(scores.logit(), true["scores"])
    people = {
        "rotmat": l1_errors(pred["rotmat"], true["rotmat"]),
        "shape": l1_errors(pred["shape"][..., None], true["shape"][:, :10, None]),
        "dist": l1_errors(pred["dist_postprocessed"][:, None], true["dist_postprocessed"][:, None, None]),
    }
    people |= {name: l1_errors(pred[name][:, None], true[name][:, None]) for name in ("offset", "transl")}
    roots = pred["transl_pelvis"][:, 0], true["transl_pelvis"]
    people |= {name: points_errors(pred[name], true[name], *roots) for name in ("j3d", "v3d")}
    terms = {name: errors.mean() for name, errors in people.items()}
    terms["bce"] = cells.sum() / (true["scores"] == 1).sum()
    for name in ("j2d", "v2d"):  # only points within the picture of 112 pixels
        inside = ((true[name] > 0) & (true[name] < 112)).all(-1)
        terms[name] = (pred[name] - true[name]).abs().sum(-1)[inside].mean()
    for name, term in terms.items():
        np.testing.assert_allclose(term, UNITS[f"loss_epoch0_{name}"], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", ["landscape", "portrait", "upscale", "square", "thin", "odd"])
def test_pictures_are_resized_as_theirs(name: str) -> None:
    arrays = np.load(HERE / "preprocess.npz")
    source, resized = arrays[f"{name}_src"], arrays[f"{name}_out"]
    pixels = Letterbox.official_2024(*source.shape[:2], len(resized)).to_tensor(source)
    found = (pixels * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    # Another version of Pillow may differ by a grey level here and there.
    assert np.abs(found.astype(int) - resized.astype(int)).max() <= 1
    assert (found != resized).mean() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [(333, 500), (480, 301), (448, 448)], ids=["landscape", "portrait", "square"]
)
@pytest.mark.parametrize("variant", ["smplx", "anny"])
def test_predict_is_their_preprocessing_and_network(
    variant: str, shape: tuple[int, int], models: dict[str, Model], tmp_path: Path
) -> None:
    """From a JPEG; their steps are written out here, the network is the one proved above."""
    height, width = shape
    model = models[variant]
    Image.fromarray(W.image(5, 512)[:height, :width]).save(tmp_path / "a.jpg", quality=95)
    image = Image.open(tmp_path / "a.jpg").convert("RGB")
    longer = max(image.size)
    content = [round(side / longer * 448) for side in image.size]
    margin = tuple(round((448 - side) * 0.5) for side in content)
    canvas = Image.new("RGB", (448, 448))
    canvas.paste(image.resize(content, Image.Resampling.BICUBIC), margin)
    images = torch.from_numpy(np.array(canvas)).movedim(-1, 0)[None].float() / 255
    with torch.inference_mode():
        said = model(images, None, threshold=0.02)

    humans = model.predict(tmp_path / "a.jpg", threshold=0.02)
    assert len(humans) == len(said.centers) > 0
    assert humans.K_source == ("assumed" if variant == "smplx" else "predicted")
    order = said.translation_P3.norm(dim=1).argsort(stable=True)  # nearest first
    close(humans.vertices, said.vertices_PV3[order].numpy(), 3e-4)
    close(humans.translation, said.translation_P3[order].numpy(), 3e-4)
    K = said.K_B33[0].numpy()
    window_xy = np.stack([project(joints, K) for joints in said.joints_PJ3[order].numpy()])
    scale = np.array(content) / image.size
    near = np.abs(window_xy).max(-1) < 5000  # beside the camera a pixel is anywhere
    close(humans.joints_2d[near], ((window_xy - margin) / scale)[near], 0.05)


@pytest.mark.slow
def test_a_licensed_user_predicts_and_saves(
    models: dict[str, Model], tmp_path: Path, fake_smplx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line and back, with SMPL-X where the README says to put it."""
    save_model(models["smplx"], tmp_path / "mine.safetensors")
    monkeypatch.setenv("MULTIHMR_HOME", str(tmp_path))
    (tmp_path / "smplx").mkdir()
    (tmp_path / "smplx" / "SMPLX_NEUTRAL.npz").symlink_to(fake_smplx_file)
    Image.fromarray(W.image(5, 300)).save(tmp_path / "a.png")
    argv = [
        "predict",
        str(tmp_path / "a.png"),
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        "--max-people",
        "3",
    ]
    argv += ["--model", str(tmp_path / "mine.safetensors"), "--threshold", "0.01"]
    assert run(argv) == 0
    assert {"a.glb", "a.json", "a.npz", "a_overlay.jpg"} <= {path.name for path in tmp_path.iterdir()}
    humans = load_humans(tmp_path / "a.npz")
    assert len(humans) == 3
    assert humans.vertices.shape == (3, 10475, 3)
    again = models["smplx"].predict(tmp_path / "a.png", threshold=0.01, max_people=3)
    np.testing.assert_allclose(humans.vertices, again.vertices, atol=1e-5)
    assert {"v3d", "transl_pelvis", "rotvec", "expression"} <= set(humans.to_dicts()[0])


@pytest.fixture(scope="module", params=["smplx", "anny"])
def in_float32(request: pytest.FixtureRequest, models: dict[str, Model]) -> tuple[Model, Any, Predictions]:
    """A model, what it is asked, and what it says in float32 of the people that theirs finds."""
    arrays = np.load(HERE / f"{request.param}_vits_448_single.npz")
    images = torch.from_numpy(arrays["image_u8"]).movedim(-1, 1).float() / 255
    cells = torch.from_numpy(arrays["idx"])
    centers = Centers(cells[:, 0], cells[:, 1], cells[:, 2], torch.ones(len(cells)))
    asked = images, torch.from_numpy(arrays["K"]).float()
    model = models[request.param]
    with torch.inference_mode():
        return model, (asked, centers), model(*asked, centers=centers)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_moves_people_by_little(
    dtype: torch.dtype, in_float32: tuple[Model, Any, Predictions]
) -> None:
    """The bounds that the README states, with made-up weights."""
    model, (asked, centers), exact = in_float32
    with torch.inference_mode():
        try:
            model.backbone.half_dtype = dtype
            rough = model(*asked, centers=centers)
        finally:
            model.backbone.half_dtype = None
    assert rough.vertices_PV3.dtype == torch.float32
    place_m, place_share = {torch.float16: (0.001, 0.002), torch.bfloat16: (0.008, 0.015)}[dtype]
    around_head = [said.vertices_PV3 - said.translation_P3[:, None] for said in (rough, exact)]
    assert 0 < (around_head[0] - around_head[1]).norm(dim=-1).max() < place_m
    moved_P = (rough.vertices_PV3 - exact.vertices_PV3).norm(dim=-1).amax(1)
    assert (moved_P / exact.translation_P3.norm(dim=-1)).max() < place_share


@pytest.mark.slow
@pytest.mark.parametrize(
    "table",
    [
        *("smplx_vits_672", "smplx_vitb_672", "smplx_vitl_672", "smplx_vitl_896", "smplx_vitl_1288"),
        "anny_vitl_672",
    ],
)
def test_every_tensor_of_a_release_finds_its_place(table: str, fake_smplx_file: Path) -> None:
    """In shape: nothing missing, nothing left over. No memory is taken."""
    checkpoint = empty_release(table, "meta")
    model_class, config_class = FAMILIES[checkpoint.family]()
    body = load_body(checkpoint.body, smplx=fake_smplx_file if checkpoint.body == "smplx" else None)
    with torch.device("meta"):
        wanted = own_state(model_class(config_of(checkpoint, config_class), body))
    assert {k: v.shape for k, v in wanted.items()} == {k: v.shape for k, v in checkpoint.tensors.items()}


@pytest.mark.nightly
@pytest.mark.parametrize("table", ["smplx_vitb_672", "smplx_vitl_896", "anny_vitl_672"])
def test_releases_run_at_their_size(table: str, fake_smplx_file: Path) -> None:
    checkpoint = empty_release(table, "cpu")
    model_class, config_class = FAMILIES[checkpoint.family]()
    body = load_body(checkpoint.body, smplx=fake_smplx_file if checkpoint.body == "smplx" else None)
    model = model_class(config_of(checkpoint, config_class), body).eval()
    load_weights(model, checkpoint)
    size = checkpoint.config["image_size"]
    with torch.inference_mode():
        said = model(torch.rand(1, 3, size, size), threshold=0.0, max_people=2)
    assert len(said.centers) > 0
    assert said.vertices_PV3.isfinite().all()


def empty_release(table: str, device: str) -> Checkpoint:
    """A release with its shapes and made-up numbers, converted."""
    shapes = json.loads((HERE / f"state_dict_{table}.json").read_text(encoding="utf-8"))
    if device == "meta":
        constant = ("encoder.fov_max", "useful_rotmat")  # whose numbers conversion looks at
        state = {k: torch.ones(s, device="cpu" if k in constant else device) for k, s in shapes.items()}
    else:
        state = {k: torch.from_numpy(W.array(k, s)) for k, s in shapes.items()}
    if "encoder.fov_max" in state:
        state["encoder.fov_max"] = torch.full((1,), math.pi)
    return convert_state(state, {}, table)
