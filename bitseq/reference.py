"""What samplers of bit strings can score: a perfect one, which draws from R/Z, and one whose words are independent.

    python -m bitseq.reference [--n 120] [--k 8] [--M_size 60]  # both, on the modes of a run with these options

**A perfect sampler.** Around one mode, b the reward exponent, exp(-b d(x, mode)) is a product over the bits: summed
over all strings it is (1 + e^-b)^n, and normalised it flips each bit with probability 1 / (1 + e^b). R(x) is the
largest of these products. Where no string counts at two modes, it is their sum, and with K different modes

    log Z = log K + n log(1 + e^-b),   mean log R = - b n / (1 + e^b).

Where balls around modes overlap, the sum counts strings twice; ``perfect`` corrects that.

**Independent words.** On-policy TB descends KL(P_F || R/Z). With one distribution q of words for all positions, its
stationary point obeys log q(w) = const + mean over positions of E_q[log R(x with word w there)].
"""

import argparse
import math
import sys

import numpy as np
import torch
from torch import Tensor

from bitseq import settings
from bitseq.common.terminal import ExperimentError, command
from bitseq.environment import StringEnvironment

MAX_ENUMERATED = 16  # bits
MAX_WORD = 12  # bits; the distances between all words are then 1.6 GB
N_DRAWN = 50_000  # strings; log Z is then exact to 0.002 nats where balls overlap most, to 1e-6 with the paper's modes
CHUNK = 2_000_000  # distances at once


def separate_modes(environment: StringEnvironment) -> tuple[float, float]:
    """log Z and a perfect sampler's mean log R, nats, as if no string counted at two modes."""
    n, exponent, n_modes = environment.n, environment.reward_exponent, len(environment.modes.unique(dim=0))
    log_z = math.log(n_modes) + n * math.log1p(math.exp(-exponent))
    return log_z, -exponent * n / (1 + math.exp(exponent))


def perfect(environment: StringEnvironment) -> tuple[float, float]:
    """log Z and a perfect sampler's mean log R, nats: all strings up to 16 bits, above that the closed form, corrected.

    The correction weighs strings of the mixture around the modes by R / (sum over modes), which is 1 where balls do
    not overlap, and takes the mixture's own, known mean for a control. Always the same strings.
    """
    if environment.n <= MAX_ENUMERATED:
        bits = torch.arange(2**environment.n).unsqueeze(1) >> torch.arange(environment.n) & 1
        log_reward = environment.log_reward(environment.tokens(bits.to(environment.device))).double()
        return log_reward.logsumexp(0).item(), (log_reward.softmax(0) * log_reward).sum().item()
    return corrected(environment)


def corrected(environment: StringEnvironment) -> tuple[float, float]:
    """The closed form corrected for overlapping balls, see ``perfect``; for any number of bits."""
    rng, exponent = np.random.default_rng(0), environment.reward_exponent
    modes = environment.modes.unique(dim=0).cpu()
    around = torch.from_numpy(rng.integers(len(modes), size=N_DRAWN))
    flipped = torch.from_numpy(rng.random((N_DRAWN, environment.n)) < 1 / (1 + math.exp(exponent)))
    weight, total = torch.empty(N_DRAWN, dtype=torch.float64), torch.empty(N_DRAWN, dtype=torch.float64)
    for rows in torch.arange(N_DRAWN).split(max(1, CHUNK // len(modes))):
        signs = torch.where(flipped[rows], -modes[around[rows]], modes[around[rows]])
        log_reward = -exponent * (environment.n - (signs @ modes.T).double()) / 2  # of each mode by itself
        largest = log_reward.max(1).values
        weight[rows], total[rows] = (largest - log_reward.logsumexp(1)).exp(), largest
    log_z, mean = separate_modes(environment)
    own = -exponent * flipped.sum(1)  # log R if the mode it was drawn around were the only one
    shift = (weight * total - own - mean * (weight - 1)).mean() / weight.mean()
    return log_z + math.log(weight.mean()), mean + shift.item()


def independent_words(environment: StringEnvironment, n_steps: int, shared: bool = True) -> tuple[Tensor, float]:
    """Independent words after steps of coordinate ascent on -KL(q || R/Z) from uniform, and their mean log R in nats.

    Args:
        environment: the strings.
        n_steps: damped by half; expectations are over 2,000 strings of q. Shared words are there after about 10.
        shared: whether all positions have the same distribution of words.

    Returns:
        (L, V) probabilities, and the mean log R of 20,000 strings.
    """
    rng, words = np.random.default_rng(0), torch.arange(environment.n_words)
    modes = environment.tokens((environment.modes < 0).long()).cpu()  # (m_size, L)
    shifts = torch.arange(environment.k)
    n_different = ((words[:, None] ^ words).unsqueeze(-1) >> shifts & 1).sum(-1).float()  # (V, V) bits between words
    log_q = torch.zeros(environment.length, environment.n_words, dtype=torch.float64)
    for _ in range(n_steps):
        strings = _drawn(log_q.softmax(1), 2_000, rng)
        apart = [n_different[strings[:, i]][:, modes[:, i]] for i in range(environment.length)]
        distance = torch.stack(apart).sum(0)  # (2000, m_size)
        expected = torch.empty_like(log_q)
        for i, (own, at_modes) in enumerate(zip(apart, modes.T, strict=True)):
            nearest = torch.full((len(strings), environment.n_words), torch.inf)
            for word in at_modes.unique():  # of the modes that have it here, the nearest in the other positions
                rest = (distance - own)[:, at_modes == word].min(1, keepdim=True).values
                nearest = torch.minimum(nearest, rest + n_different[word])
            expected[i] = -environment.reward_exponent * nearest.mean(0)
        log_q = (log_q + (expected.mean(0, keepdim=True) if shared else expected)) / 2
    q = log_q.softmax(1)
    strings = _drawn(q, 20_000, rng).to(environment.device)
    return q, environment.log_reward(strings).double().mean().item()


def _drawn(q: Tensor, n_strings: int, rng: np.random.Generator) -> Tensor:
    """(N, L) strings of independent words of (L, V) probabilities."""
    uniform = torch.from_numpy(rng.random((len(q), n_strings)))
    cumulative = q.cumsum(1)
    return torch.searchsorted(cumulative / cumulative[:, -1:], uniform).clamp(max=q.shape[1] - 1).T


def main(argv: list[str] | None = None) -> int:
    """Print the numbers; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bitseq.reference", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=120, help="bits of a string (120)")
    parser.add_argument("--k", type=int, default=8, help="bits of a word (8)")
    parser.add_argument("--M_size", type=int, default=60, help="modes (60)")
    arguments = parser.parse_args(argv)

    def work() -> None:
        size = [f"--{name}={value}" for name, value in vars(arguments).items()]
        config = settings.parse([*size, "--mode_threshold=0", "--device=cpu"])
        if config.k > MAX_WORD:
            raise ExperimentError(f"--k is {config.k}: this command lists pairs of words, take at most {MAX_WORD} bits")
        environment = StringEnvironment(config.n, config.k, config.M_size, config.reward_exponent)
        log_z, mean = perfect(environment)
        print(f"a perfect sampler: log Z {log_z:.3f}, mean log R {mean:.2f}")
        print("closed form: log Z {:.3f}, mean log R {:.2f}".format(*separate_modes(environment)))
        for name, shared in (("the same words everywhere", True), ("words of their own at every position", False)):
            means = [independent_words(environment, n_steps, shared)[1] for n_steps in (0, 6, 12, 18, 24, 30, 36)]
            print(f"independent, {name}: mean log R {', '.join(f'{value:.1f}' for value in means)}")
        print("(after 0, 6, 12, ... steps)")

    return command(work)


if __name__ == "__main__":
    sys.exit(main())
