"""The renderer: what it says about people is what its pictures show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multihmr.bodies.anny import Anny
from multihmr.bodies.body import place
from multihmr.data.shards import Shards, write_shard

pytest.importorskip("warp", reason="rendering needs warp: pip install 'multihmr[synthetic]'")

from multihmr.data.synthetic import SyntheticScenes, find_assets, write_shards

SIZE = 128


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> SyntheticScenes:
    """Without any assets: painted clothes and built-in poses, as on a stranger's machine."""
    return SyntheticScenes(3, SIZE, count=40, assets=tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def dressed() -> SyntheticScenes:
    folder = find_assets()
    if folder is None or not (folder / "makehuman_cc0").is_dir():
        pytest.skip("the CC0 pack (shared/assets/makehuman_cc0) is not here")
    return SyntheticScenes(3, SIZE, count=40)


def shares_on_person(scenes: SyntheticScenes, index: int) -> list[float]:
    """For each person whom nothing hides: the share of vertices within a pixel of what shows them."""
    body, sample = Anny(), scenes[index]
    if not len(sample):
        return []
    person = scenes.renderer.tracer.people(scenes.scene(index).camera)  # of the scene just built
    parameters = (torch.from_numpy(getattr(sample, k)) for k in ("pose", "shape", "expression"))
    placed = place(body(*parameters), torch.from_numpy(sample.translation), body.center_joint)
    shares = []
    for k in np.flatnonzero(sample.visibility > 0.88):
        x, y, z = (placed.vertices_PV3[k].numpy() @ sample.K.T).T
        row, column = (y / z).astype(int), (x / z).astype(int)
        near = [
            person[np.clip(row + i, 0, SIZE - 1), np.clip(column + j, 0, SIZE - 1)] == k
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
        ]
        shares.append(float(np.any(near, axis=0).mean()))
    return shares


@pytest.mark.parametrize("kind", ["bare", "dressed"])
def test_projected_vertices_fall_on_their_person(kind: str, request: pytest.FixtureRequest) -> None:
    scenes = request.getfixturevalue(kind)
    shares = [share for i in range(8) for share in shares_on_person(scenes, i)]
    assert len(shares) >= 2
    assert min(shares) > 0.95


def test_same_seed_and_index_give_the_same_sample_whatever_came_before(bare: SyntheticScenes) -> None:
    first = bare[7]
    _ = bare[1]
    again = bare[7]
    other = bare[8]
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.pose, again.pose)
    assert np.array_equal(first.translation, again.translation)
    assert not np.array_equal(first.image, other.image)


def test_every_person_shows_the_head_and_enough_of_the_body(bare: SyntheticScenes) -> None:
    for i in range(8):
        sample = bare[i]
        heads = sample.translation @ sample.K.T
        heads = heads[:, :2] / heads[:, 2:]
        assert (sample.translation[:, 2] > 0.3).all()
        assert ((heads > 0) & (heads < SIZE)).all()
        assert (sample.visibility > 0.05).all()
        assert sample.pose.shape[1:] == (104, 3, 3)


def test_shards_are_read_as_they_were_written_and_kept_on_resuming(tmp_path, bare: SyntheticScenes) -> None:  # type: ignore[no-untyped-def]
    samples = [bare[i] for i in range(3)]
    write_shard(tmp_path / "a.tar", samples)
    for before, after in zip(samples, Shards(tmp_path / "a.tar"), strict=True):
        assert after.name == before.name
        assert np.abs(after.image.astype(int) - before.image).mean() < 16  # JPEG, of a noisy picture
        assert all(np.array_equal(getattr(after, k), getattr(before, k)) for k in ("K", "pose", "visibility"))
    empty = tmp_path / "none"
    empty.mkdir()
    paths = write_shards(tmp_path, 3, 3, 64, per_shard=2, workers=1, assets=empty)
    made = [p.stat().st_mtime_ns for p in paths]
    assert [len(Shards(p)) for p in paths] == [2, 1]
    write_shards(tmp_path, 3, 3, 64, per_shard=2, workers=1, assets=empty)
    assert [p.stat().st_mtime_ns for p in paths] == made
    cut = paths[0].read_bytes()[:3000]
    paths[0].write_bytes(cut)
    with pytest.raises(ValueError, match="no complete shard"):
        Shards(paths[0])


def test_missing_and_hostile_folders_are_refused_by_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SyntheticScenes(1, assets=tmp_path / "nowhere")
    from multihmr.data.wardrobe import inside

    with pytest.raises(ValueError, match="outside"):
        inside(tmp_path, "../secret.npz")
