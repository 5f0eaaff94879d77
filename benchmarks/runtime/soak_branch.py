"""One budgeted cache of the soak beside a memory of everything, compared after every forward."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from benchmarks.runtime.soak_dense import LONGEST, Dense, Memory
from benchmarks.runtime.soak_held import differing_names, expect, held_mask
from kvbudget.allocator import Plan
from kvbudget.runtime import BudgetedCache

TOLERANCE = 1e-5


@dataclass(slots=True)
class Worst:
    """Figures of everything compared so far.

    Args:
        difference: Largest difference of a logit, as a share of the spread of its forward's logits.
        held_share: Largest share of the budget that was held.
        forwards: Forwards compared.
        evicting: Those of them after something had been evicted.
    """

    difference: float = 0.0
    held_share: float = 0.0
    forwards: int = 0
    evicting: int = 0


class Branch:
    """A budgeted cache, and what it would be if it kept everything.

    Args:
        model: The model, inside `budgeted`.
        dense: The same model as its oracle.
        cache: The cache; nothing may have been read into it.
        worst: Where figures go.
    """

    def __init__(
        self, model: Qwen2ForCausalLM, dense: Dense, cache: BudgetedCache, worst: Worst
    ) -> None:
        self._model, self._dense, self._worst = model, dense, worst
        self.cache = cache
        self._left: dict[str, Tensor] | None = None
        self.begin(torch.zeros(1, dtype=torch.long))

    def begin(self, padding: Tensor) -> None:
        """Get ready for a prompt whose rows begin with so many columns of padding, [batch]."""
        self.memory: Memory = self._dense.memory(padding)
        self._has_cut = False
        self._held = self._held_now()
        expect(not self.cache.nbytes(), "an empty cache holds memory")

    @property
    def plan(self) -> Plan:
        """The plan that holds now."""
        return self.cache.plan

    def copied(self) -> "Branch":
        """The same with a cache and a memory of its own; both are left."""
        self.leave()
        other = copy.copy(self)
        other.cache, other.memory = copy.deepcopy(self.cache), self.memory.copied()
        other.check_unchanged()
        other.leave()
        return other

    def leave(self) -> None:
        """Something else is done now, which must not change this branch."""
        self._left = self.cache.state_dict()

    def read(self, tokens: Tensor, *, shows_mask: bool, inference: bool) -> None:
        """Let the model and the oracle read tokens, [batch, new], and compare.

        Args:
            tokens: The next ones.
            shows_mask: Whether the model is given a mask that it could do without.
            inference: Whether it runs in inference mode.
        """
        first, new = self.memory.columns, tokens.shape[1]
        end = first + new
        self._has_cut = self._has_cut or not self._fits(len(tokens), end)
        before = self._held if new == 1 else self._held_by_block(len(tokens), end)
        with torch.inference_mode() if inference else torch.no_grad():
            logits = self._model(
                tokens, past_key_values=self.cache, **self._mask(end, new, shows_mask)
            ).logits
        now = self._held_now()
        # one token may make room for itself; a block attends first and is cut afterwards
        attended = None if first == 0 else now if new == 1 else before
        theirs = self._dense.logits(self.memory, tokens, attended)
        self._compare(logits, theirs, self.memory.real(first, end))
        self._check_held(now, first)
        self._worst.forwards += 1
        self._worst.evicting += self._has_cut

    def crop(self, removed: int) -> None:
        """Take back the newest columns."""
        self.cache.crop(-removed)
        self.memory.columns -= removed
        expect(self.cache.get_seq_length() == self.memory.columns, "crop removed another number")
        self._held = self._held & (torch.arange(LONGEST) < self.memory.columns)
        self.check_unchanged()

    def select(self, rows: Tensor, way: str) -> None:
        """Go on with these rows.

        Args:
            rows: Their numbers; those of a `way` that repeats must be what it makes.
            way: Name of the cache's method.
        """
        repeats = len(rows) // self.memory.rows
        getattr(self.cache, way)(repeats if way == "batch_repeat_interleave" else rows)
        self.memory = self.memory.selected(rows)
        self._held = self._held[:, rows]
        self._after_a_cut()

    def go_over_to(self, plan: Plan) -> None:
        """Live within another plan of the same model and batch size."""
        smaller = plan.budget_bytes <= self.plan.budget_bytes
        (self.cache.shrink if smaller else self.cache.grow)(plan)
        self._after_a_cut()

    def reload(self) -> None:
        """Go on with a cache that was emptied and got everything back as tensors."""
        self.leave()
        other = copy.deepcopy(self.cache)
        other.reset()
        other.load_state_dict(self.cache.state_dict())
        self.cache = other
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Refuse a cache that is not as it was when this branch was last used or left."""
        expect(torch.equal(self._held_now(), self._held), "other tokens are held than before")
        if self._left is not None:
            differing = differing_names(self._left, self.cache.state_dict())
            expect(not differing, f"not as it was left: {', '.join(differing)}")
            self._left = None
        self._check_bytes()

    def _after_a_cut(self) -> None:
        if self.memory.columns == 0:
            return
        self._has_cut = self._has_cut or not self._fits(self.memory.rows, self.memory.columns)
        self._check_held(self._held_now(), self.memory.columns)

    def _fits(self, rows: int, columns: int) -> bool:
        """Whether the budget holds all columns in all caches."""
        token_bytes = int(self.plan.geometry.token_bytes.sum())
        return rows * columns * token_bytes <= self.plan.budget_bytes

    def _mask(self, end: int, new: int, shows_mask: bool) -> dict[str, Tensor]:
        if not (shows_mask or self.memory.padding.any()):
            return {}
        seen = self.memory.real(0, end).long()
        places = (seen.cumsum(-1) - 1).clamp_min(0)
        return {"attention_mask": seen, "position_ids": places[:, end - new :]}

    def _held_by_block(self, rows: int, end: int) -> Tensor:
        """What a block attends to: what is held once every layer has got ready for it."""
        columns = self.memory.columns
        if not columns or self._fits(rows, columns) == self._fits(rows, end):
            return self._held
        # capacities begin to hold just now, and no other way leads between cut and attention
        ready = copy.deepcopy(self.cache)
        ready.stack.expect(rows, end - columns)
        return held_mask(ready, rows)

    def _held_now(self) -> Tensor:
        return held_mask(self.cache, self.memory.rows)

    def _compare(self, ours: Tensor, theirs: Tensor, real: Tensor) -> None:
        theirs = theirs[real]
        difference = float((ours[real] - theirs).abs().max() / (theirs.max() - theirs.min()))
        self._worst.difference = max(self._worst.difference, difference)
        expect(difference <= TOLERANCE, f"logits differ by {difference:.3g} of their spread")

    def _check_held(self, now: Tensor, first_new: int) -> None:
        """Compare what is held with what was, with the capacities, and with the budget."""
        columns, rows = self.memory.columns, self.memory.rows
        column = torch.arange(LONGEST)
        back = now & ~self._held & (column < first_new)
        expect(not bool(back.any()), "a token that was evicted came back")
        real = torch.zeros(rows, LONGEST, dtype=torch.bool)
        real[:, :columns] = self.memory.real(0, columns)
        expect(not bool((now & ~real[:, None]).any()), "padding or a token to come is held")
        if not self._has_cut:
            expect(bool((now == real[:, None]).all()), "something was evicted that would fit")
        sizes = now.sum(-1)
        if not self._fits(rows, columns):
            capacities = torch.tensor(self.plan.capacity_tokens)[:, None]
            expect(bool((sizes <= capacities).all()), "a cache is larger than its capacity")
        self._held = now
        self._check_bytes()

    def _check_bytes(self) -> None:
        held, allowed = self.cache.nbytes(), self.plan.budget_bytes
        token_bytes = torch.tensor(self.plan.geometry.token_bytes)[:, None]
        needed = int((self._held.sum(-1) * token_bytes).sum())
        expect(needed <= held <= allowed, f"{held} bytes for {needed}, of {allowed} allowed")
        expect(self.cache.nbytes(overhead=True) >= held, "overhead is below nothing")
        self._worst.held_share = max(self._worst.held_share, held / allowed)
