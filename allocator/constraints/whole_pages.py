"""Memory that is handed out in pages."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvbudget.allocator.caches import origin_of
from kvbudget.allocator.checks import check_count
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.geometry import MOST_TOKENS
from kvbudget.allocator.terms import Terms

if TYPE_CHECKING:
    from kvbudget.allocator.problem import Problem


@dataclass(frozen=True, slots=True)
class WholePages(Constraint):
    """Each capacity is a whole number of pages, or all the tokens a cache can need.

    ``Problem.from_profile`` rounds the capacity of every level up to whole pages and counts the
    bytes of whole pages. The loss of a level stays as measured with fewer tokens, so it errs on
    the safe side. Several page sizes together mean their least common multiple. A problem counts
    whole pages against the budget; a plan's own ``used_bytes`` are those of its tokens.

    Args:
        page_tokens: Tokens of one cache that a page holds.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below 1 or above 2**40, or pages are asked of a problem that was made
            without them.
    """

    page_tokens: int

    def __post_init__(self) -> None:
        """Check the size."""
        object.__setattr__(
            self, "page_tokens", check_count("page_tokens", self.page_tokens, most=MOST_TOKENS)
        )

    def terms(self, problem: "Problem") -> Terms:
        """Nothing more: the menu already holds whole pages."""
        if origin_of(problem, type(self).__name__).page_tokens % self.page_tokens:
            raise ValueError(
                "`constraints` must hold WholePages from the start, because pages change the"
                " menu. Give it to Problem.from_profile."
            )
        return Terms()
