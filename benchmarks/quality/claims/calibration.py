"""What is measured once, on prompts of their own, and kept in files so that a run can go on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kvbudget import Profile, measure_importance, measure_profile
from kvbudget.allocator.arrays import Floats
from kvbudget.demo.trying import Reader
from kvbudget.heuristics import CacheHeuristic, TokenHeuristic, name_of, settings_of


@dataclass(frozen=True, slots=True)
class Calibration:
    """Profiles and importances of one model on one set of prompts.

    Args:
        reader: The model and its tokenizer.
        prompts: Token ids of each calibration prompt.
        folder: Where profiles and importances are kept.
        future_tokens: Tokens of each calibration prompt that stand for the future.
    """

    reader: Reader
    prompts: Sequence[list[int]]
    folder: Path
    future_tokens: int

    def profile(self, heuristic: TokenHeuristic) -> Profile:
        """Losses in divergence with this heuristic's tokens, from the folder if they are there."""
        file = self._file("profile", heuristic, ".safetensors")
        if not file.is_file():
            found = measure_profile(
                self.reader.model,
                self.prompts,
                heuristic,
                future_tokens=self.future_tokens,
                progress=False,
            )
            found.save(file)
        return Profile.load(file)

    def importance(self, heuristic: CacheHeuristic) -> Floats:
        """Importance of the caches, [layers, kv_heads], from the folder if it is there."""
        file = self._file("importance", heuristic, ".txt")
        if not file.is_file():
            np.savetxt(file, self.weigh(heuristic, self.prompts))
        found: Floats = np.loadtxt(file, ndmin=2)
        return found

    def weigh(self, heuristic: CacheHeuristic, prompts: Sequence[list[int]]) -> Floats:
        """Importance of the caches on these prompts, [layers, kv_heads]."""
        return measure_importance(self.reader.model, prompts, heuristic, progress=False)

    def _file(self, what: str, heuristic: TokenHeuristic | CacheHeuristic, ending: str) -> Path:
        """One for each heuristic and its settings."""
        settings = (str(value) for _, value in settings_of(heuristic))
        return self.folder / ("-".join((what, name_of(heuristic), *settings)) + ending)
