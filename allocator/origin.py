"""Where a problem came from: what it takes to turn chosen levels back into a plan."""

from dataclasses import dataclass

import numpy as np

from .arrays import Floats, Ints, same_values
from .geometry import Geometry
from .profile import Profile
from .profile_check import ProfileCheck
from .settings import Settings


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """The profile and the request behind a problem.

    Args:
        geometry: The caches of the model; the units are those that are present, layer by layer:
            where layers do not differ, unit ``u`` is layer ``u // kv_heads``, KV head
            ``u % kv_heads``.
        capacity_tokens: Tokens a cache keeps at each level, int64 [units, levels].
        kept_fraction: Share of the context kept at each level, [levels].
        loss: Loss of each unit at each level as measured, [units, levels]; it may rise.
        context_tokens: Longest context to plan for, in tokens.
        batch_size: Sequences that share the budget.
        model: Name or path of the model.
        heuristic: Registry name of the heuristic that chooses tokens.
        heuristic_settings: Its settings as (name, value) pairs.
        measure: Name of the measure that the loss is in.
        made_by: One readable line on how the profile came about.
        page_tokens: Tokens of a page, if memory is handed out in pages; else 1.
        check: What plans made from the profile really lost; None if nobody looked.
    """

    geometry: Geometry
    capacity_tokens: Ints
    kept_fraction: Floats
    loss: Floats
    context_tokens: int
    batch_size: int
    model: str
    heuristic: str
    heuristic_settings: Settings
    measure: str
    made_by: str
    page_tokens: int = 1
    check: ProfileCheck | None = None

    @classmethod
    def of(
        cls, profile: Profile, context_tokens: int, batch_size: int, page_tokens: int = 1
    ) -> "Origin":
        """What a problem made from ``profile`` has to remember.

        With pages, capacities are rounded up to whole ones, but never beyond what a cache needs.
        """
        geometry = profile.geometry
        capacity = geometry.capacity_tokens(profile.kept_fraction, context_tokens)
        capacity = capacity[geometry.present]
        # the last level is the whole context, or the whole window of a layer
        capacity = np.minimum(whole_pages(capacity, page_tokens), capacity[:, -1:])
        capacity.flags.writeable = False
        return cls(
            geometry=geometry,
            capacity_tokens=capacity,
            kept_fraction=profile.kept_fraction,
            loss=profile.loss[geometry.present],
            context_tokens=context_tokens,
            batch_size=batch_size,
            model=profile.model,
            heuristic=profile.heuristic,
            heuristic_settings=profile.heuristic_settings,
            measure=profile.measure,
            made_by=profile.made_by,
            page_tokens=page_tokens,
            check=profile.check,
        )

    @property
    def token_bytes(self) -> Ints:
        """Bytes of one token of one sequence in each unit, int64 [units]."""
        return self.geometry.token_bytes[self.geometry.present]

    @property
    def stored_tokens(self) -> Ints:
        """Tokens that memory is taken for at each level, int64 [units, levels]: whole pages."""
        return whole_pages(self.capacity_tokens, self.page_tokens)

    def __eq__(self, other: object) -> bool:
        """Whether every field is equal, arrays element by element."""
        return same_values(self, other)


def whole_pages(tokens: Ints, page_tokens: int) -> Ints:
    """Round tokens up to whole pages."""
    pages: Ints = -(-tokens // page_tokens)
    return pages * page_tokens
