"""A layer whose keys and values the model rewrites, so that all heads hold the same tokens."""

from dataclasses import replace

import torch
from torch import Tensor

from .attention_call import AttentionCall
from .eviction import select, tail_slots
from .judge import Judge, held_tokens
from .padded_tokens import PaddedTokens, block_tokens
from .ragged import RaggedStore
from .recent_queries import QUERIES_REMEMBERED
from .rectangle import rectangle_attention
from .rectangle_layer import RectangleLayer
from .rewritten_judge import RewrittenJudge


class RewrittenLayer(RectangleLayer):
    """Stores what the model stores, as one KV head, and attends with what the model makes of it.

    Latent attention stores one latent vector per token and expands it to keys and values of every
    head at each step. Which tokens stay is judged by the expanded ones, so nothing goes before it
    has attended.
    """

    judge: RewrittenJudge

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._shown: PaddedTokens | None = None
        self._calls_left = 0

    def show(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What the model gets to see of tokens just admitted: all that is held, and them behind.

        Args:
            keys: Of the new tokens, [batch, 1, new, dim].
            values: Of the new tokens, [batch, 1, new, dim].
        """
        self._calls_left = self.cached.calls
        if self.reads_prompt:
            real = torch.ones(len(keys), keys.shape[2], dtype=torch.bool, device=keys.device)
            self._shown = block_tokens(keys, values, 0, real, 0)
        else:
            self._shown = self._rectangle(keys.detach(), values.detach())
        return self._shown.keys, self._shown.values

    @torch.inference_mode(False)
    def attend(self, call: AttentionCall) -> Tensor:
        """Attention over the keys and values that the model made, [batch, new, heads, value_dim].

        A model may call several times in one forward; the first call decides what stays.
        """
        shown = self._what_was_shown()
        output = rectangle_attention(call, _made_of(shown, call), self.window)
        if self.is_pending:
            self.judge.remember(call.queries)
            if not self._in_tail:
                new = call.queries.shape[2]
                with torch.no_grad(), self.judge.judging_by(call):
                    self._absorb(shown, new if new <= QUERIES_REMEMBERED else 0)
            self.is_pending = False
        return output

    def absorb_prompt(self, call: AttentionCall) -> None:
        """Keep the best of a prompt whose attention has been computed."""
        shown = self._what_was_shown()
        with self.judge.judging_by(call):
            super().absorb_prompt(replace(call, keys=shown.keys, values=shown.values))

    def let_go(self) -> None:
        """Forget what the model was shown, once it has attended as often as it does."""
        self._calls_left -= 1
        if self._calls_left <= 0:
            self._shown = None

    def _what_was_shown(self) -> PaddedTokens:
        assert self._shown is not None, "the model was shown what is held"
        return self._shown

    def _new_judge(self) -> Judge:
        return RewrittenJudge(self.index, self.heuristic, self.window, self.rotation)

    def _make_room(self, store: RaggedStore, new: int) -> bool:
        return new <= store.free_tail

    def _tail_behind(self, capacities: Tensor, reach: Tensor) -> int:
        held = held_tokens(reach)
        slots = tail_slots(capacities, torch.minimum(held, capacities), 1)
        slack = int((capacities - held).min())
        # nothing goes for the sake of free slots alone
        return slots if slack < 0 else min(slots, slack)

    def _evict(
        self, store: RaggedStore, tokens: PaddedTokens, reach: Tensor, room: Tensor, tail: int
    ) -> None:
        """Cut by the scores of the last time that tokens attended; newer ones go last."""
        scores, newer = tokens.state[..., -1], tokens.positions >= store.tail_first
        scores = scores.masked_fill(newer, torch.finfo(scores.dtype).max)
        keep = reach
        if bool((held_tokens(reach) > room).any()):
            keep = select(scores, reach, room)
        # what has attended since is still the newest if it has to be cut once more
        state = torch.cat([tokens.state[..., :-1], scores[..., None]], -1)
        store.merge(keep, state, tail, room + tail)
        self._draft = (0, 0)


def _made_of(shown: PaddedTokens, call: AttentionCall) -> PaddedTokens:
    """The tokens shown to the model, with the keys and values that it made of them."""
    heads = call.keys.shape[1]
    return replace(
        shown,
        keys=call.keys,
        values=call.values,
        positions=shown.positions.expand(-1, heads, -1),
        valid=shown.valid.expand(-1, heads, -1),
    )
