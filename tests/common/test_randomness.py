"""Random streams: independent, by the seed, back from a checkpoint."""

import numpy as np
import pytest
import torch

from hypergrid.common.randomness import Streams


def test_streams_are_independent():
    """What one stream has drawn, or that another was drawn from, changes no other."""
    untouched, used = Streams.from_seed(3), Streams.from_seed(3)
    used.sampling.random(1000)
    torch.rand(1000)
    for name in ("replay", "evaluation"):
        assert np.array_equal(getattr(untouched, name).random(8), getattr(used, name).random(8))
    streams = Streams.from_seed(3)
    draws = [getattr(streams, name).random(1000) for name in ("sampling", "replay", "evaluation")]
    correlation = np.corrcoef([*draws, torch.rand(1000).numpy()])
    assert np.abs(correlation[np.triu_indices(4, 1)]).max() < 0.15


def test_streams_follow_the_seed():
    def first_draws(seed: int) -> tuple:
        streams = Streams.from_seed(seed)
        generators = (streams.sampling, streams.replay, streams.evaluation)
        return streams.initialisation, *(float(g.random()) for g in generators), torch.rand(1).item()

    assert first_draws(3) == first_draws(3)
    assert all(a != b for a, b in zip(first_draws(3), first_draws(4), strict=True))


def test_streams_of_a_gpu_come_back_where_there_is_none():
    state = Streams.from_seed(3).state_dict() | {"cuda": [torch.zeros(16, dtype=torch.uint8)]}
    streams = Streams.from_seed(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        streams.load_state_dict(state)
    assert streams.sampling.random() == Streams.from_seed(3).sampling.random()


def test_streams_come_back_from_a_checkpoint(tmp_path):
    def draws(streams: Streams) -> list:
        generators = (streams.sampling, streams.replay, streams.evaluation)
        return [*(g.standard_normal(5).tolist() for g in generators), torch.rand(5).tolist()]

    streams = Streams.from_seed(3)
    draws(streams)
    torch.save(streams.state_dict(), tmp_path / "state.pt")
    expected = draws(streams)
    other = Streams.from_seed(4)
    draws(other)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draws(other) == expected
