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
    reader.at_patches = torch.nn.Identity()
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
