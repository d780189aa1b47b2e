"""One seed, independent random streams: what one part of a run draws leaves the other parts' numbers alone.

This file is the same, byte for byte, in every suite.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass
class Streams:
    """Independent random streams of one seed, so that a change in one leaves the others untouched."""

    initialisation: int
    sampling: np.random.Generator
    replay: np.random.Generator
    evaluation: np.random.Generator

    @classmethod
    def from_seed(cls, seed: int) -> "Streams":
        """Split one seed; also seeds torch's global generator, which dropout uses in training."""
        children = np.random.SeedSequence(seed).spawn(5)
        initialisation, torch_seed = (int(child.generate_state(1)[0]) for child in children[:2])
        torch.manual_seed(torch_seed)
        return cls(initialisation, *(np.random.default_rng(child) for child in children[2:]))

    def _generators(self) -> dict[str, np.random.Generator]:
        return {"sampling": self.sampling, "replay": self.replay, "evaluation": self.evaluation}

    def state_dict(self) -> dict[str, Any]:
        """Every generator's state, torch's global ones included."""
        state: dict[str, Any] = {name: rng.bit_generator.state for name, rng in self._generators().items()}
        state["torch"] = torch.get_rng_state()
        state["cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        for name, rng in self._generators().items():
            rng.bit_generator.state = state[name]
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available():
            # A run may go on where there are fewer GPUs, more or none.
            for device, saved in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
                torch.cuda.set_rng_state(saved, device)
