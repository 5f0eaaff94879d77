"""Presses that kvpress fits to texts of the hub, fitted here to prompts that ours are fitted to.

The recipes are kvpress' own; only the texts, which cannot be downloaded, are replaced.
"""

from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import kvpress as kp
import pandas
import torch
from kvpress.presses import duo_attention_press
from kvpress.presses.expected_attention_with_stats import patch_rotary_embedding

from benchmarks.peers.presses import Entry
from benchmarks.peers.trial import PeerTrial

# streaming heads keep 128 sinks and 256 recent tokens of 1024
DUO_STREAMING_SHARE = (128 + 256) / 1024


class FittedExpectedAttention(kp.ExpectedAttentionStatsPress):
    """The press with statistics of the queries that are handed to it."""

    @classmethod
    def of(cls, removed: float, statistics: tuple[torch.Tensor, torch.Tensor]) -> Any:
        """A press for a share to remove."""
        press = cls(removed)
        press.mu, press.cov = statistics
        return press


@torch.no_grad()
def query_statistics(
    model: Any, trials: Sequence[PeerTrial], sinks: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the queries of each head, as kvpress' script collects them."""
    found = []
    for trial in trials:
        with patch_rotary_embedding(model) as queries:
            model(torch.tensor([trial.context]))
        found.append(torch.cat(queries)[:, :, sinks:])
    queries = torch.cat(found, dim=-2)
    centred = queries - queries.mean(-2, keepdim=True)
    covariance = centred.mT @ centred / (queries.shape[-2] - 1)
    return queries.mean(-2), covariance


class LocalTexts:
    """Stands for the data set that DuoAttention samples from."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def to_pandas(self) -> "LocalTexts":
        """As the data set does."""
        return self

    def sample(self, count: int, random_state: int) -> pandas.DataFrame:
        """As many of the texts as are asked for, the same ones again where there are fewer."""
        return pandas.DataFrame({"chapter": (self.texts * count)[:count]})


class FittedDuoAttention(kp.DuoAttentionPress):
    """The press with patterns computed from local texts."""

    texts: list[str]

    @contextmanager
    def __call__(self, model: Any) -> Any:
        """As the press does."""
        local = LocalTexts(self.texts)
        with (
            patch.object(duo_attention_press, "load_dataset", lambda *_, **__: local),
            super().__call__(model),
        ):
            yield


def duo(removed: float, texts: list[str]) -> Any:
    """So many streaming heads that a share of the pairs is removed."""
    press = FittedDuoAttention(removed / (1 - DUO_STREAMING_SHARE), on_the_fly_scoring=True)
    press.texts = texts
    return press


def fitted(model: Any, tokenizer: Any, trials: Sequence[PeerTrial]) -> dict[str, Entry]:
    """Fit to the prose among the trials."""
    prose = [trial for trial in trials if trial.kind == "books"]
    statistics = query_statistics(model, prose)
    texts = [tokenizer.decode(trial.context) for trial in prose]
    return {
        "ExpectedAttention, fitted": Entry(
            lambda removed: FittedExpectedAttention.of(removed, statistics)
        ),
        "DuoAttention, on the fly": Entry(
            lambda removed: duo(removed, texts), smallest=DUO_STREAMING_SHARE
        ),
    }
