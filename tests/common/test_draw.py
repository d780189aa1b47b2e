"""How the strings and the molecules draw an index: proportional to its weight, and never one without weight."""

import numpy as np
import torch
from each import each

import bitseq.sampling
import mols.sampling

LARGEST_BELOW_ONE = 1 - 2.0**-53
each_draw = each("draw", [bitseq.sampling.draw, mols.sampling.draw])


@each_draw
def test_draw_is_the_first_index_whose_summed_weight_exceeds_the_number(draw):
    rng = np.random.default_rng(4)
    weights = rng.random((500, 7)) * (rng.random((500, 7)) < 0.6)
    weights[weights.sum(1) == 0, 3] = 1.0
    uniform = rng.random(500)
    found = draw(torch.from_numpy(weights), torch.from_numpy(uniform)).tolist()
    for row, number in enumerate(uniform):
        index, summed = 0, weights[row, 0]
        while summed <= number * weights[row].sum():
            index += 1
            summed += weights[row, index]
        assert found[row] == index and weights[row, index] > 0


@each_draw
@each("scale", [1e-30, 1.0, 3.0, 1e30])
@each("weights", [[0, 0, 1, 2, 0], [1, 0, 0, 0, 3], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 1, 1e-40]])
def test_an_entry_without_weight_is_never_drawn_at_either_end(draw, weights, scale):
    weights = torch.tensor(weights, dtype=torch.float64) * scale
    positive = weights.nonzero().flatten().tolist()
    lowest, highest = draw(weights.expand(2, -1), torch.tensor([0.0, LARGEST_BELOW_ONE], dtype=torch.float64)).tolist()
    assert lowest == positive[0] and highest in positive


@each_draw
def test_the_largest_number_draws_the_last_entry_of_many_whatever_the_rounding(draw):
    rng = np.random.default_rng(5)
    for length in (2, 15, 256, 1_000):
        weights = torch.from_numpy(rng.dirichlet(np.ones(length), size=200)).float().double()
        weights[:, -1] = 0.0  # so that a total that rounding leaves behind would show
        found = draw(weights, torch.full((200,), LARGEST_BELOW_ONE, dtype=torch.float64))
        assert (weights.gather(1, found[:, None]) > 0).all()
