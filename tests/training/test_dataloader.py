from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from toys import ToyBody

from multihmr.data.mixture import Mixture, Source, open_sources
from multihmr.data.person_crops import one_person_twice
from multihmr.data.webdataset import Shards, write_shard
from multihmr.training.collate import collate
from multihmr.training.dataloader import Dropped, TrainDataset, batches, window_shapes
from multihmr.training.distributed import Distributed

TOPOLOGY = ToyBody().topology


@pytest.fixture
def stream(shards) -> TrainDataset:
    return TrainDataset(Mixture(open_sources(str(shards)), seed=3), TOPOLOGY, 64)


def test_the_stream_repeats_itself_and_never_repeats_a_view(stream):
    np.testing.assert_array_equal(stream[4].image, stream[4].image)
    first, again = ([stream[g] for g in range(start, start + 9)] for start in (0, 9))
    assert {s.name for s in first} == {s.name for s in again}
    assert len({s.name for s in first}) == 9
    assert not any((a.image == b.image).all() for a in first for b in again)


def names_of_steps(stream, config, start, count):
    """For each step, which samples all processes together see."""
    ranks = [list(batches(stream, config, start, Distributed(rank, count))) for rank in range(count)]
    return [
        sorted(n for parts in step for part in parts for n in part.names) for step in zip(*ranks, strict=True)
    ]


@pytest.mark.parametrize(("count", "accumulate"), [(1, 4), (2, 1), (2, 2), (4, 1)])
def test_a_step_has_the_same_samples_however_it_is_cut(stream, config, count, accumulate):
    whole = names_of_steps(stream, config(), 0, 1)
    assert names_of_steps(stream, config(accumulate=accumulate), 1, count) == whole[1:]


def test_processes_must_share_a_step_evenly(stream, config):
    with pytest.raises(ValueError, match=r"2 processes with 3 batches each cannot share 4 .* multiple of 6"):
        batches(stream, config(accumulate=3), 0, Distributed(0, 2))


def test_paired_crops_stay_together_however_a_step_is_cut(shards, config):
    mixture = Mixture(open_sources(str(shards)), seed=3)
    stream = TrainDataset(mixture, TOPOLOGY, 64, view=one_person_twice, views=2)
    whole = names_of_steps(stream, config(), 0, 1)
    assert [len(names) for names in whole] == [4] * len(whole)
    assert names_of_steps(stream, config(accumulate=1), 1, 2) == whole[1:]
    for [batch] in batches(stream, config(), 0, Distributed()):
        assert batch.views == 2
        assert batch.names[0::2] == batch.names[1::2]
        assert batch.single(1).views == 1
    with pytest.raises(ValueError, match=r"2 processes with 2 batches each cannot share 4 .* multiple of 8"):
        batches(stream, config(accumulate=2), 0, Distributed(0, 2))


@pytest.mark.parametrize("workers", [0, 1])
def test_data_without_a_readable_picture_stop_the_run_in_one_sentence(toy_sample, config, tmp_path, workers):
    shards = damaged(tmp_path, [toy_sample()])
    stream = TrainDataset(Mixture([Source("mine", shards)]), TOPOLOGY, 64)
    with pytest.raises(ValueError, match=r"^mine, sample number 0: .*'000000'.*a\.tar") as caught:
        next(batches(stream, config(workers=workers), 0, Distributed()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_replaced_and_counted_by_reason(toy_sample, config, tmp_path, workers, caplog):
    shards = damaged(tmp_path, [toy_sample(seed) for seed in range(16)])
    dataset = TrainDataset(Mixture([Source("mine", shards)]), TOPOLOGY, 64)
    steps = list(batches(dataset, config(workers=workers, steps=4), 0, Distributed()))
    names = [name for [batch] in steps for name in batch.names]
    assert len(names) == 16
    assert "mine/000000" not in names  # its place was taken by the next one, which so comes twice
    assert sorted({*names}) == [f"mine/{seed:06d}" for seed in range(1, 16)]
    [reason] = [reason for [batch] in steps for reason in batch.dropped]
    assert reason.startswith("mine, sample number 0: sample '000000' in ")
    left_out, counted = (record.getMessage() for record in caplog.records)
    assert left_out == f"sample left out: {reason}"
    assert counted == f"samples left out while training: 1 (1 x {reason})"


def test_many_damaged_pictures_stop_a_run():
    dropped = Dropped()
    batch = FakeBatch(("a is damaged", "b is damaged"))
    for _ in range(10):
        dropped.count(batch)
    with pytest.raises(
        ValueError, match=r"22 of 176 training samples .*, the first because of: a is damaged"
    ):
        dropped.count(batch)


class FakeBatch(SimpleNamespace):
    def __init__(self, dropped):
        super().__init__(dropped=dropped)

    def __len__(self):
        return 16


def damaged(folder, samples):
    """Shards of which the first picture cannot be decoded."""
    write_shard(folder / "a.tar", samples)
    shards = Shards(folder / "a.tar")
    path, _, places = shards._members[0]
    with path.open("r+b") as file:
        file.seek(places["jpg"][0])
        file.write(bytes(200))
    return shards


def test_two_sets_of_one_name_cannot_be_in_a_batch(toy_sample):
    points = [replace(toy_sample(), keypoints_2d=np.zeros((2, n, 2)), keypoint_set="top") for n in (1, 2)]
    with pytest.raises(ValueError, match=r"'000000' has 2 points of keypoint set 'top', others have 1"):
        collate(points)


def test_window_shapes_are_multiples_of_both_orientations_and_squares():
    assert window_shapes(288, 32) == [
        *((160, 288), (288, 160), (192, 288), (288, 192), (224, 288), (288, 224), (256, 288), (288, 256)),
        *((288, 288), (288, 288)),
    ]


@pytest.mark.parametrize(("count", "accumulate"), [(1, 2), (2, 2)])
def test_each_step_has_one_window_shape_however_it_is_cut(shards, config, count, accumulate):
    shapes = [(64, 32), (32, 64), (64, 64)]
    mixture = Mixture(open_sources(str(shards)), seed=3)
    stream = TrainDataset(mixture, TOPOLOGY, 64, shapes=shapes, samples_a_step=config().batch_size)
    seen = []
    for rank in range(count):
        steps = batches(stream, config(accumulate=accumulate), 0, Distributed(rank, count))
        seen.append([{tuple(part.images_BHW3.shape[1:3]) for part in step} for step in steps])
    assert all(len(step) == 1 for rank in seen for step in rank)
    assert all(rank == seen[0] for rank in seen)
    drawn = {stream.window(g) for g in range(0, 400, config().batch_size)}
    assert drawn == set(shapes)
