import torch

from multihmr.networks.detection import Centers
from multihmr.networks.joint_heatmaps import JointHead, JointReading, patch_middles


def two_people() -> tuple[Centers, torch.Tensor]:
    index = torch.tensor([0, 0])
    heads_P2 = torch.tensor([[0.3, 0.1], [0.7, 0.1]])
    return Centers(index, torch.tensor([0, 0]), torch.tensor([1, 2]), torch.ones(2)), heads_P2


def read(answers_hwC: torch.Tensor, centers: Centers, heads_P2: torch.Tensor) -> JointReading:
    """What two people read off patches that say just this of one joint."""
    reader = JointHead(8, 1, 16)
    first, second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 4, bias=False)
    with torch.no_grad():  # x = relu(x) - relu(-x)
        first.bias.zero_()
        first.weight[:] = torch.cat([torch.eye(4), -torch.eye(4)])
        second.weight[:] = first.weight.T
    reader.at_patches = torch.nn.Sequential(first, torch.nn.ReLU(), second)
    reader.to_read = torch.nn.Linear(4, 32)
    return reader(answers_hwC.movedim(-1, 0)[None], None, centers, heads_P2)[1]


def test_people_read_the_patch_that_points_at_their_own_head():
    centers, heads_P2 = two_people()
    middles_hw2 = patch_middles(4, 4, heads_P2.device)
    answers_hwC = torch.zeros(4, 4, 4)
    answers_hwC[..., 0] = -10
    for person, col in ((0, 3), (1, 0)):  # each one's joint is on the other's side
        answers_hwC[3, col, 0] = 10
        answers_hwC[3, col, 1:3] = heads_P2[person] - middles_hw2[3, col]
    places_P2 = read(answers_hwC, centers, heads_P2).places_PJ2[:, 0] + heads_P2
    torch.testing.assert_close(places_P2, middles_hw2[3, [3, 0]], atol=1e-3, rtol=0)


def test_a_joint_between_two_patches_is_found_between_them():
    centers, heads_P2 = two_people()
    middles_hw2 = patch_middles(4, 4, heads_P2.device)
    answers_hwC = torch.zeros(4, 4, 4)
    answers_hwC[..., 1:3] = heads_P2[0] - middles_hw2
    answers_hwC[..., 0] = -10
    answers_hwC[2, 1:3, 0] = 10
    place_2 = read(answers_hwC, centers, heads_P2).places_PJ2[0, 0] + heads_P2[0]
    torch.testing.assert_close(place_2, torch.tensor([0.5, 0.625]), atol=1e-3, rtol=0)


def test_nobody_reads_nothing():
    reader = JointHead(8, 3, 16, fine_width=6)
    nobody = Centers(*torch.zeros(3, 0, dtype=torch.long), torch.zeros(0))
    known_PD, reading = reader(torch.randn(2, 8, 4, 4), torch.randn(2, 6, 8, 8), nobody, torch.zeros(0, 2))
    assert known_PD.shape == (0, 16)
    assert reading.places_PJ2.shape == (0, 3, 2)
    (known_PD.sum() + reading.logits_BhwJ.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in reader.parameters())


@torch.no_grad()
def test_first_layers_before_upsampling_are_those_behind_it():
    torch.manual_seed(0)
    reader = JointHead(8, 2, 16, fine_width=5)
    torch.nn.init.normal_(reader.to_fine.weight)
    grid_BDhw, fine_BDhw = torch.randn(2, 8, 3, 4), torch.randn(2, 5, 6, 8)
    hidden_BhwD, read_BhwF = reader._at_patches(grid_BDhw, fine_BDhw)
    upsampled = torch.nn.functional.interpolate(grid_BDhw, scale_factor=2, mode="bilinear")
    cells_BhwD = (upsampled + reader.to_fine(fine_BDhw)).movedim(1, -1)
    torch.testing.assert_close(hidden_BhwD, reader.at_patches[0](cells_BhwD), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read_BhwF, reader.to_read(cells_BhwD), atol=1e-5, rtol=1e-5)
