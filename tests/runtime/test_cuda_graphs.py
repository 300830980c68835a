"""Recorded predictions say what eager ones say, and wait for the device but once."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toys import tiny_anny_model, tiny_glnet, tiny_model, tiny_network

from multihmr import load_model
from multihmr.bodies.skinning import cut, joined
from multihmr.evaluation.speed.machine import difference_mm
from multihmr.evaluation.speed.stages import Run
from multihmr.preprocessing.letterbox import Letterbox
from multihmr.runtime import cuda_graphs
from multihmr.runtime.backends import check_backend
from multihmr.runtime.cuda_graphs import CudaGraphRuntime, PeopleNearestFirst
from multihmr.runtime.float8 import Float8Linear, with_float8
from multihmr.runtime.gpu_resize import seen_through

MAKERS = {
    "multihmr": lambda: tiny_model(nms_3d_distance=(0.2, 0.2)),
    "as released in 2024": lambda: tiny_model(read_joints=(), released=True),
    "anny of 2026": tiny_anny_model,
}
IMAGES = Path(__file__).parents[2] / "examples" / "images"
GROUP = IMAGES / "group.jpg"
FIELDS = ("scores", "vertices", "joints", "joints_2d", "boxes", "translation", "pelvis", "pose", "shape", "K")


@pytest.fixture(scope="module", params=MAKERS)
def model(request):
    return MAKERS[request.param]()


def pictures(count):
    """As large as the window, so that nothing is resized: that is another test."""
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def both(model, images, Ks=None, **options):
    """What eager and recorded prediction say."""
    recorded = copy.copy(model)
    recorded.runtime = CudaGraphRuntime(model.network)
    yield from zip(
        model.predict_batch(images, Ks, **options),
        recorded.predict_batch(images, Ks, **options),
        strict=True,
    )


@pytest.fixture(scope="module")
def middle_score(model):
    """A threshold that some of the cells of `pictures` reach."""
    scores = np.concatenate([h.scores for h in model.predict_batch(list(pictures(5)), threshold=0.0)])
    return float(np.median(scores))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"max_people": 2}, {"max_people": 0}, {"tiles": 2}, {"fov": 50.0}])
def test_says_what_eager_prediction_says(model, middle_score, options):
    found = 0
    for threshold in (middle_score, 1.0):
        for eager, recorded in both(model, list(pictures(3)), threshold=threshold, **options):
            assert len(eager) == len(recorded)
            assert eager.K_source == recorded.K_source
            for field in FIELDS:
                torch.testing.assert_close(
                    torch.tensor(getattr(recorded, field)),
                    torch.tensor(getattr(eager, field)),
                    atol=2e-4,
                    rtol=2e-4,
                )
            found += len(eager)
    assert found or options.get("max_people") == 0


def test_cameras_are_those_that_were_given(model):
    K = [[50.0, 0, 30], [0, 52, 33], [0, 0, 1]]
    for eager, recorded in both(model, list(pictures(2)), [K, None], threshold=0.0, max_people=3):
        assert eager.K_source == recorded.K_source
        np.testing.assert_allclose(recorded.K, eager.K, rtol=1e-5)
        np.testing.assert_allclose(recorded.joints_2d, eager.joints_2d, atol=1e-2)


@pytest.mark.slow
def test_nobody_is_lost_where_there_are_more_people_than_slots(model, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "SLOTS", 1)
    counts = [
        (len(eager), len(recorded)) for eager, recorded in both(model, list(pictures(4)), threshold=0.0)
    ]
    assert all(eager == recorded for eager, recorded in counts)
    assert max(counts)[0] > 1


def test_what_comes_later_does_not_change_what_was_said():
    model = tiny_model()
    model.runtime = CudaGraphRuntime(model.network)
    first = model.predict(pictures(2)[0], threshold=0.0)
    before = first.vertices.copy()
    model.predict(pictures(2)[1], threshold=0.0)
    np.testing.assert_array_equal(first.vertices, before)


def test_many_thresholds_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MOST_RECORDINGS", 2)
    model = tiny_model()
    model.runtime = CudaGraphRuntime(model.network)
    for threshold in (0.1, 0.2, 0.3, 0.1):
        model.predict(pictures(1)[0], threshold=threshold)
    assert [key[2] for key in model.runtime._recordings] == [0.3, 0.1]


class Waits(TorchDispatchMode):
    """Notes what would wait for a GPU, or carry something to it, while a prediction is recorded."""

    WORDS = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "linalg_inv", "linalg_solve")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        # Single numbers of the CPU go along with a kernel, unless they are copied.
        devices = {x.device.type for x in tensors if x.dim() or "copy" in str(func)}
        if devices - {"cuda"} or any(word in str(func) for word in self.WORDS):
            self.found.append((str(func), devices))
        return out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("name", [*MAKERS, "bundled"])
def test_a_recording_never_waits_for_the_device(name):
    """On a GPU that is but pretended: what shapes it has and where each tensor lies is known without one."""
    model = load_model(device="cpu") if name == "bundled" else MAKERS[name]()
    if name == "bundled":  # what it does on a GPU at first, before anything is recorded
        tables = joined(model.body._patches)
        model.body._patches = cut(*tables, torch.arange(len(tables[0])), size=len(tables[0]))
    size = model.config.image_size
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        for part in model.network.modules():
            for held in (part._parameters, part._buffers):
                held |= {
                    key: torch.empty(value.shape, dtype=value.dtype, device="cuda")
                    for key, value in held.items()
                    if value is not None
                }
        pixels = torch.zeros(2, 3, size, size, device="cuda")
        K = torch.full((2, 3, 3), torch.nan, device="cuda")
        with Waits() as waits:
            answer = PeopleNearestFirst(model.network, 5, None)(pixels, K)
    assert answer["vertices"].shape[:2] == (2, 5)
    assert {tensor.device.type for tensor in answer.values()} == {"cuda"}
    assert waits.found == []


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x + torch.tensor([1.0, 2, 3]).to("cuda"),
        lambda x: x + torch.tensor(1.0).to("cuda"),
        lambda x: torch.linalg.inv(x[:, None].expand(3, 3)),
    ],
)
def test_waiting_would_be_noticed(act):
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits:
        act(torch.zeros(3, device="cuda"))
    assert waits.found


WINDOWS = {
    "whole": Letterbox.whole(90, 120, 64),
    "enlarged": Letterbox.whole(90, 120, 160),
    "shrunk by whole pixels first": Letterbox.whole(90, 120, 16),
    "as released": Letterbox.official_2024(90, 120, 56),
    "a part": Letterbox.box(10.3, 20.6, 70.1, 55.5, 48),
    "beyond the picture, mirrored": Letterbox.box(-30, -20.5, 60, 70, 64, flip=True),
    "beside the picture": Letterbox.box(200, 200, 300, 300, 32),
}


@pytest.mark.parametrize("letterbox", WINDOWS.values(), ids=WINDOWS)
def test_pixels_are_those_of_pillow(letterbox, monkeypatch):
    monkeypatch.setattr("multihmr.preprocessing.letterbox._resizes_quickly", lambda: False)
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    levels = 255 * (seen_through(letterbox, torch.from_numpy(picture)) - letterbox.to_tensor(picture)).abs()
    assert levels.max() < 1.01
    assert (levels > 0.5).float().mean() < 0.005


@pytest.fixture(scope="module")
def float8():
    """The products that it needs, on this machine."""
    try:
        Float8Linear(nn.Linear(16, 16))(torch.ones(1, 16, dtype=torch.bfloat16))
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        pytest.skip(f"no products of 8-bit floats here: {error}")


def test_products_of_8_bit_floats_are_near(float8):
    torch.manual_seed(0)
    linear = nn.Linear(64, 48)
    linear.weight.data *= torch.logspace(-3, 3, 48)[:, None]
    x = torch.randn(2, 5, 64) * torch.logspace(-3, 3, 5)[:, None]
    with torch.no_grad():
        expected, got = linear(x), Float8Linear(linear)(x.to(torch.bfloat16)).float()
        sizes = linear.weight.norm(dim=1) * x.norm(dim=-1, keepdim=True) + linear.bias.abs()
    # Three bits behind the point: whatever the size of its row, a factor is a sixteenth off at most.
    error = (got - expected).abs() / sizes
    assert 0.002 < error.max() < 0.02


def test_only_layers_that_the_kernels_take_get_8_bits(float8):
    network = nn.Sequential(nn.Linear(32, 64), nn.Sequential(nn.GELU(), nn.Linear(64, 24)))
    assert with_float8(network) == 1
    assert isinstance(network[0], Float8Linear)
    assert network[0].weight.element_size() == 1
    assert isinstance(network[1][1], nn.Linear)


@pytest.mark.slow
def test_8_bit_floats_move_people_hardly_further_than_16_bits(float8):
    model = load_model(device="cpu")
    weight = model.backbone.blocks[0].mlp.fc1.weight
    exact = model.predict(GROUP)
    model.backbone.half_dtype = torch.bfloat16
    of_16_bits = model.predict(GROUP)
    model.runtime = CudaGraphRuntime(model.network, float8=True)
    of_8_bits = model.predict(GROUP)
    moved = [difference_mm([exact], [other]) for other in (of_16_bits, of_8_bits)]
    assert [alone for _, _, alone in moved] == [0, 0]
    assert moved[0][1] != moved[1][1]
    assert moved[1][1] < 2 * moved[0][1]
    assert model.backbone.blocks[0].mlp.fc1.weight is weight  # what learns and what is saved stays


@pytest.mark.parametrize("backend", cuda_graphs.RECORDED)
def test_a_cpu_has_nothing_to_record(backend):
    with pytest.raises(ValueError, match="what an NVIDIA GPU does, got device 'cpu'"):
        load_model(device="cpu", backend=backend)
    check_backend(backend, device="cuda")


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(ValueError, match="cannot be recorded, because it looks at one person's crop"):
        CudaGraphRuntime(tiny_glnet())
    with pytest.raises(ValueError, match=r"take dtype=torch\.bfloat16"):
        CudaGraphRuntime(tiny_network(), float8=True)


def test_its_time_counts_to_the_backbone():
    model = tiny_model()
    model.runtime = CudaGraphRuntime(model.network)
    seconds = Run(model, pictures(1)[0], people=2, batch=1)()
    assert set(seconds) == {"decode", "letterbox", "backbone", "end to end"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("backend", cuda_graphs.RECORDED)
def test_a_gpu_says_recorded_what_it_says_eagerly(backend):
    eager = load_model(device="cuda", dtype=torch.bfloat16)
    recorded = load_model(device="cuda", dtype=torch.bfloat16, backend=backend)
    images = [GROUP, IMAGES / "astronaut.jpg", np.zeros((90, 120, 3), np.uint8)]
    for _ in range(2):
        for one, other in zip(eager.predict_batch(images), recorded.predict_batch(images), strict=True):
            assert len(one) == len(other)
            assert np.linalg.norm(one.vertices - other.vertices, axis=-1).max(initial=0) < 0.1
