"""The decision to make, stated once: a multiple-choice knapsack."""

import math
from dataclasses import dataclass, replace

import numpy as np

from .arrays import Floats, Ints, float_array, int_array, refuse, same_values
from .budget import Budget, parse_budget
from .bytes_text import format_bytes
from .checks import check_count
from .constraint import Constraint
from .constraints.whole_pages import WholePages
from .curves import running_minimum
from .geometry import MOST_TOKENS
from .origin import Origin
from .profile import Profile
from .risk import Mean, Risk, tail_mean
from .terms import terms_of

AXES = ("units", "levels")
MOST_BYTES = 2**62
MOST_LOSS = 1e290


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Choose one level per unit so that total loss is least within a byte budget.

        minimise    sum_u loss[u, level[u]]
        subject to  sum_u cost_bytes[u, level[u]] <= budget_bytes

    A unit is whatever gets its own budget: one KV head of one layer, or a whole layer.

    Args:
        loss: Loss of each unit at each level, [units, levels], unitless, never rising. It may be
            infinite at the lowest levels of a unit, which are then never chosen.
        cost_bytes: Memory of each unit at each level, int64 [units, levels], never falling.
        budget_bytes: Bytes that all units may use together.
        constraints: Further limits, from ``kvbudget.constraints``.
        origin: Where the problem came from; needed to turn a solution into a plan, and by
            constraints that speak of tokens.
        sample_loss: Loss in each calibration sample, [samples, units, levels]; only needed for a
            risk other than the mean. ``loss`` is then at most its mean.
        risk: How the losses of the samples become the one that is minimised.

    Raises:
        TypeError: If an array does not hold numbers or a field has the wrong type.
        ValueError: If shapes differ, a value is NaN, the loss rises, the cost falls, or a
            constraint does not fit the problem.
    """

    loss: Floats
    cost_bytes: Ints
    budget_bytes: int
    constraints: tuple[Constraint, ...] = ()
    origin: Origin | None = None
    sample_loss: Floats | None = None
    risk: Risk = Mean()  # noqa: RUF009

    def __post_init__(self) -> None:
        """Copy and check every field."""
        checked = {
            "loss": float_array("loss", self.loss, AXES, infinite=True),
            "cost_bytes": int_array("cost_bytes", self.cost_bytes, AXES),
            "budget_bytes": check_count("budget_bytes", self.budget_bytes, least=0),
            "constraints": check_constraints(self.constraints),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_curves()
        self._check_origin()
        self._check_samples()
        for constraint in self.constraints:
            constraint.terms(self)

    def _check_curves(self) -> None:
        """Refuse arrays of different shapes and curves that turn the wrong way."""
        loss, cost = self.loss, self.cost_bytes
        if loss.shape != cost.shape:
            raise ValueError(
                "`loss` and `cost_bytes` must share the shape [units, levels],"
                f" but got {loss.shape} and {cost.shape}."
            )
        beyond = (np.abs(loss) > MOST_LOSS) & (loss != np.inf)
        refuse("loss", loss, beyond, AXES, "must be within 1e290, or infinite")
        rises = np.zeros(loss.shape, dtype=bool)
        rises[:, 1:] = loss[:, 1:] > loss[:, :-1]
        rule = "must never rise from one level to the next (running_minimum repairs it)"
        refuse("loss", loss, rises, AXES, rule)
        refuse("cost_bytes", cost, cost < 0, AXES, "must be at least 0")
        rule = "must never fall from one level to the next"
        refuse("cost_bytes", cost, np.diff(cost, prepend=cost[:, :1]) < 0, AXES, rule)
        check_total("cost_bytes", self.ceiling_bytes)

    def _check_origin(self) -> None:
        """Refuse an origin of other caches or another menu."""
        if self.origin is None:
            return
        if not isinstance(self.origin, Origin):
            raise TypeError(f"`origin` must be an Origin or None, but got {self.origin!r:.60}.")
        if self.origin.capacity_tokens.shape != self.loss.shape:
            raise ValueError(
                f"`origin` must have the problem's shape [units, levels], {self.loss.shape},"
                f" but has {self.origin.capacity_tokens.shape}. Leave it out for changed menus."
            )

    def _check_samples(self) -> None:
        """Refuse a risk without the losses of samples, or with losses that do not belong to it."""
        if not isinstance(self.risk, Risk):
            raise TypeError(f"`risk` must be a risk such as CVaR(0.9), but got {self.risk!r:.60}.")
        if self.sample_loss is None:
            if self.risk != Mean():
                raise ValueError(
                    f"`sample_loss` must be given for the risk {self.risk}, but got None."
                )
            return
        samples = float_array("sample_loss", self.sample_loss, ("samples", *AXES))
        object.__setattr__(self, "sample_loss", samples)
        if samples.shape[1:] != self.loss.shape:
            raise ValueError(
                "`sample_loss` must have the shape [samples, units, levels] with"
                f" {self.loss.shape} after the samples, but got {samples.shape}."
            )
        refuse("sample_loss", samples, np.abs(samples) > MOST_LOSS, AXES, "must be within 1e290")
        above = self.loss > samples.mean(axis=0) + 1e-9 * np.abs(samples).mean(axis=0)
        refuse("loss", self.loss, above, AXES, "must be at most the mean of `sample_loss`")

    @classmethod
    def from_profile(
        cls,
        profile: Profile,
        *,
        budget: Budget,
        context_tokens: int,
        batch_size: int = 1,
        constraints: tuple[Constraint, ...] = (),
        risk: Risk = Mean(),  # noqa: B008
    ) -> "Problem":
        """The problem of dividing a budget among the caches of a profiled model.

        A measured loss may rise a little with memory. The problem then takes the loss of the
        best level that needs no more memory and that the constraints allow.

        Args:
            profile: Measured losses; a unit is one of its caches, layer by layer.
            budget: Bytes, ``"2GiB"``, ``"25%"`` of the full cache, or ``Tokens(1024)``.
            context_tokens: Longest context to plan for, in tokens.
            batch_size: Sequences that share the budget.
            constraints: Further limits, from ``kvbudget.constraints``.
            risk: ``Mean()``, ``WorstSample()`` or ``CVaR(level)``: which prompts to plan for.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If the budget cannot be read, a count is below 1, or a constraint does
                not fit the model.
        """
        if not isinstance(profile, Profile):
            raise TypeError(
                f"`profile` must be a Profile, but got a {type(profile).__name__}. Make one with"
                " measure_profile, or read one with Profile.load."
            )
        check_count("context_tokens", context_tokens)
        check_count("batch_size", batch_size)
        geometry = profile.geometry
        check_total("context_tokens", geometry.full_bytes(context_tokens, batch_size))
        constraints = check_constraints(constraints)
        pages = [c.page_tokens for c in constraints if isinstance(c, WholePages)]
        page_tokens = check_count("page_tokens", math.lcm(*pages), most=MOST_TOKENS)
        most_pages = [-(-tokens // page_tokens) for tokens in geometry.most_tokens(context_tokens)]
        stored = [pages * page_tokens for pages in most_pages]
        check_total("page_tokens", geometry.bytes_of(stored, batch_size))
        origin = Origin.of(profile, context_tokens, batch_size, page_tokens)
        samples = loss_of_units(profile) if risk != Mean() else None
        loss = origin.loss if samples is None else samples.mean(axis=0)
        problem = cls(
            loss=running_minimum(loss),
            cost_bytes=origin.stored_tokens * (origin.token_bytes * batch_size)[:, None],
            budget_bytes=parse_budget(budget, geometry, context_tokens, batch_size),
            constraints=constraints,
            origin=origin,
            sample_loss=samples,
            risk=risk,
        )
        allowed = terms_of(problem).allowed
        if allowed is None or samples is not None:
            return problem
        return replace(problem, loss=running_minimum(np.where(allowed, loss, np.inf)))

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and KV heads; unit ``u`` is layer ``u // kv_heads``, KV head ``u % kv_heads``.

        Where layers differ in their KV heads, this is the number of the widest layer, and the
        units are the caches that there are, layer by layer. Without an origin every unit counts
        as a layer of its own.
        """
        if self.origin is None:
            return len(self.loss), 1
        return self.origin.geometry.layers, self.origin.geometry.kv_heads

    def total_loss(self, levels: Ints) -> float:
        """What a choice of levels loses under the problem's risk.

        Args:
            levels: Level of each unit, int64 [units].
        """
        units = np.arange(len(levels))
        if self.sample_loss is None or self.risk == Mean():
            return math.fsum(self.loss[units, levels].tolist())
        totals = self.sample_loss[:, units, levels].sum(axis=1)  # [samples]
        return tail_mean(totals, self.risk.tail_samples(len(totals)))

    @property
    def floor_bytes(self) -> int:
        """Bytes of the smallest choice: every unit at its lowest level."""
        return sum(self.cost_bytes[:, 0].tolist())

    @property
    def ceiling_bytes(self) -> int:
        """Bytes of the largest choice: every unit at its highest level."""
        return sum(self.cost_bytes[:, -1].tolist())

    def __eq__(self, other: object) -> bool:
        """Whether every field is equal, arrays element by element."""
        return same_values(self, other)

    def __str__(self) -> str:
        """A few lines for people."""
        units, levels = self.loss.shape
        lowest, highest = format_bytes(self.floor_bytes), format_bytes(self.ceiling_bytes)
        ends = [np.full(units, level, dtype=np.int64) for level in (0, levels - 1)]
        worst, best = (self.total_loss(end) for end in ends)
        lines = [
            f"Problem: {units} units with {levels} levels each,"
            f" budget {format_bytes(self.budget_bytes)}",
            f"  lowest levels   {lowest}, loss {worst:.4g}",
            f"  highest levels  {highest}, loss {best:.4g}",
        ]
        if self.risk != Mean():
            lines.append(f"  risk            {self.risk}")
        lines += [f"  constraint      {constraint}" for constraint in self.constraints]
        return "\n".join(lines)


def check_total(name: str, num_bytes: int) -> None:
    """Refuse so many bytes that sums of them would not be safe in 64 bits.

    Raises:
        ValueError: If there are more than 2**62.
    """
    if num_bytes > MOST_BYTES:
        raise ValueError(
            f"`{name}` must keep all caches together within {format_bytes(MOST_BYTES)},"
            f" but they need {format_bytes(num_bytes)}."
        )


def check_constraints(constraints: object) -> tuple[Constraint, ...]:
    """Return constraints as a tuple.

    Raises:
        TypeError: If there is one alone, or one is something else.
    """
    if not isinstance(constraints, tuple | list):
        raise TypeError(
            "`constraints` must be a list or tuple of constraints, but got"
            f" {constraints!r:.60}. Put it into a list."
        )
    for each in constraints:
        if not isinstance(each, Constraint):
            raise TypeError(
                "`constraints` must hold constraints such as LeastTokens(64),"
                f" but got {each!r:.60}."
            )
    return tuple(constraints)


def loss_of_units(profile: Profile) -> Floats:
    """Losses of a profile's samples, [samples, units, levels]."""
    units: Floats = profile.sample_loss[:, profile.geometry.present]
    return units
