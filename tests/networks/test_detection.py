import torch

from multihmr.networks.detection import Centers, find_centers, nms_3d, pad_people


def heatmap(peaks: dict) -> torch.Tensor:
    scores = torch.full((2, 6, 6), 0.01)
    for cell, score in peaks.items():
        scores[cell] = score
    return scores


def test_a_peak_hides_its_weaker_neighbours():
    centers = find_centers(heatmap({(0, 2, 2): 0.9, (0, 2, 3): 0.8, (1, 5, 5): 0.7}), threshold=0.3)
    assert centers.image_index_P.tolist() == [0, 1]
    assert list(zip(centers.row_P.tolist(), centers.col_P.tolist(), strict=True)) == [(2, 2), (5, 5)]


def test_a_score_equal_to_the_threshold_counts():
    assert len(find_centers(heatmap({(0, 1, 1): 0.5}), threshold=0.5)) == 1


def test_max_people_keeps_the_best_of_each_image():
    scores = heatmap({(0, 0, 0): 0.5, (0, 3, 3): 0.9, (1, 1, 1): 0.4, (1, 4, 1): 0.6})
    centers = find_centers(scores, threshold=0.3, max_people=1)
    assert torch.allclose(centers.scores_P, torch.tensor([0.9, 0.6]))
    assert len(find_centers(scores, threshold=0.3, max_people=0)) == 0


def test_padding_keeps_every_person_and_survives_empty_images():
    x_PD = torch.randn(5, 4)
    index_P = torch.tensor([1, 1, 4, 4, 4])
    padded, mask, slot = pad_people(x_PD, index_P, 6)
    assert padded.shape == (6, 3, 4)
    assert mask.sum(1).tolist() == [0, 2, 0, 0, 3, 0]
    assert torch.equal(padded[index_P, slot], x_PD)


def test_padding_of_nobody_has_one_empty_slot():
    padded, mask, _ = pad_people(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 2)
    assert padded.shape == (2, 1, 4)
    assert not mask.any()


def centers_with(scores, images):
    nowhere = torch.zeros(len(scores), dtype=torch.long)
    return Centers(torch.tensor(images, dtype=torch.long), nowhere, nowhere, torch.tensor(scores))


def test_one_person_found_in_two_cells_counts_once_and_two_beside_each_other_twice():
    places = torch.tensor([[0.0, 0, 4], [0.05, 0, 4.1], [0.5, 0, 4], [0.4, 0, 8.0], [0.05, 0, 4.1]])
    centers = centers_with([0.5, 0.9, 0.6, 0.4, 0.3], [0, 0, 0, 0, 1])
    kept = nms_3d(places, centers, nms_3d_distance=(0.25, 0.2))
    assert kept.tolist() == [False, True, True, True, True]
    best = nms_3d(places, centers, nms_3d_distance=(0.25, 0.2), at_most=1)
    assert best.tolist() == [False, True, False, False, True]


def test_nobody_differs_from_nobody():
    assert not len(nms_3d(torch.zeros(0, 3), centers_with([], []), nms_3d_distance=(0.2, 0.2)))


def test_a_head_right_behind_another_is_the_same_seen_twice():
    places = torch.tensor([[0.0, 0, 4], [0.1, 0, 9.0]])
    assert nms_3d(places, centers_with([0.5, 0.4], [0, 0]), nms_3d_distance=(0.25, 0.2)).tolist() == [
        True,
        False,
    ]
