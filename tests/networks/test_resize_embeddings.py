import torch

from multihmr.networks.resize_embeddings import stretched


def test_tables_of_rows_are_stretched_and_the_rest_stays():
    rows, other = torch.tensor([[0.0, 4.0], [2.0, 0.0]]), torch.rand(3)
    found = stretched({"rows": rows, "other": other}, {"rows": torch.zeros(4, 2), "other": torch.zeros(3)})
    torch.testing.assert_close(found["rows"], torch.tensor([[0.0, 4.0], [0.5, 3.0], [1.5, 1.0], [2.0, 0.0]]))
    assert found["other"] is other


def test_positions_of_patches_are_resampled_and_that_of_the_whole_picture_stays():
    whole, square = torch.full((1, 1, 2), 7.0), torch.arange(4.0).view(1, 4, 1).expand(1, 4, 2)
    wanted = {"vit.pos_embed": torch.zeros(1, 17, 2)}
    found = stretched({"vit.pos_embed": torch.cat([whole, square], dim=1)}, wanted)["vit.pos_embed"]
    torch.testing.assert_close(found[:, :1], whole)
    assert found.shape == (1, 17, 2)
    assert found[0, 1:, 0].argmin() == 0
    assert found[0, 1:, 0].argmax() == 15
