"""What the figures say: who is chosen, who is best, who loses where."""

from dataclasses import dataclass
from statistics import fmean

from benchmarks.peers.arms import READ_ONCE, SOLVED
from benchmarks.peers.attempt import FULL_CACHE
from benchmarks.peers.cells import CHOOSING, KVPRESS, OURS, Cell
from benchmarks.peers.shares import NEEDLES, SHARES

# a press that holds hardly more than it was asked to keep has freed the rest
FREES = 1.02
ENOUGH = 0.95
# presses that let the model read the context a second time
READ_TWICE = {"KVCompose, structured", "KVCompose, unstructured", "KVgrad", "KVzip", "KVzip+"}


@dataclass(frozen=True, slots=True)
class Findings:
    """All cells of a run.

    Args:
        cells: Figures.
    """

    cells: tuple[Cell, ...]

    def kinds(self) -> list[str]:
        """Kinds of prompts that everything is compared on."""
        return list(dict.fromkeys(cell.kind for cell in self.cells if cell.side == KVPRESS))

    def of(self, side: str, name: str, kept: float) -> dict[str, Cell]:
        """Cells of one contender at one share, by kind."""
        return {
            cell.kind: cell
            for cell in self.cells
            if (cell.side, cell.name, cell.kept) == (side, name, kept)
        }

    def names(self, side: str) -> list[str]:
        """Contenders of a side that have been run at the main shares."""
        return list(
            dict.fromkeys(
                cell.name
                for cell in self.cells
                if cell.side == side and cell.kept in SHARES and cell.name != FULL_CACHE
            )
        )

    def mean(self, side: str, name: str, kept: float) -> float:
        """Mean divergence over the kinds; not a number unless every kind has been run."""
        found = self.of(side, name, kept)
        wanted = set(self.kinds()) if side != CHOOSING else {c.kind for c in found.values()}
        if not found or set(found) != wanted or any(not c.divergence for c in found.values()):
            return float("nan")
        return fmean(cell.mean for cell in found.values())

    def exact(self, side: str, name: str, kept: float, kind: str) -> float:
        """Share of exact answers."""
        cell = self.of(side, name, kept).get(kind)
        return cell.exact / cell.answers if cell and cell.answers else float("nan")

    def chosen(self, kept: float, *, read_once: bool = False) -> str:
        """The solved plan that loses least on the prompts that plans are chosen on."""
        names = [arm.name for arm in (READ_ONCE if read_once else SOLVED)]
        known = {name: self.mean(CHOOSING, name, kept) for name in names}
        return min((name for name in names if known[name] == known[name]), key=known.__getitem__)

    def frees(self, name: str) -> bool:
        """Whether a press holds no more than it was asked to keep."""
        cells = [cell for kept in SHARES for cell in self.of(KVPRESS, name, kept).values()]
        return all(cell.held_share <= FREES * cell.kept for cell in cells if cell.divergence)

    def best(self, kept: float, *, freeing: bool, read_once: bool = False) -> str:
        """The press that loses least at a share."""
        barred = READ_TWICE if read_once else set()
        names = [n for n in self.names(KVPRESS) if self.frees(n) == freeing and n not in barred]
        known = {name: self.mean(KVPRESS, name, kept) for name in names}
        return min((name for name in names if known[name] == known[name]), key=known.__getitem__)

    def reads_twice(self, name: str) -> bool:
        """Whether a contender of either side lets the model read the context a second time."""
        return name in READ_TWICE | {arm.name for arm in SOLVED} - {a.name for a in READ_ONCE}

    def lost_to(self, kept: float, kind: str) -> list[Cell]:
        """Presses that lose less than the chosen plan on one kind of prompts."""
        ours = self.of(OURS, self.chosen(kept), kept)[kind]
        found = [self.of(KVPRESS, name, kept).get(kind) for name in self.names(KVPRESS)]
        return [cell for cell in found if cell and cell.divergence and cell.mean < ours.mean]

    def won(self, kept: float, kind: str, press: Cell) -> str:
        """On how many prompts the chosen plan loses less than a press."""
        ours = self.of(OURS, self.chosen(kept), kept)[kind].divergence
        pairs = list(zip(ours, press.divergence, strict=False))
        return f"{sum(here < there for here, there in pairs)} of {len(pairs)}"

    def needles(self, side: str, name: str) -> list[tuple[float, float]]:
        """Held share and exact answers over every share that was run, rising."""
        cells = [
            cell
            for cell in self.cells
            if (cell.side, cell.name, cell.kind) == (side, name, NEEDLES) and cell.divergence
        ]
        return sorted((cell.held_share, cell.exact / cell.answers) for cell in cells)

    def fewest_bytes(self, side: str, name: str) -> float:
        """Least held share from which on nearly all needles of the full cache are found."""
        found = [share for share in self.needles(side, name) if share[0] < 1]
        enough = ENOUGH * self.exact(side, FULL_CACHE, 1.0, NEEDLES)
        least = 1.0
        for held, exact in reversed(found):
            if exact < enough:
                break
            least = held
        return least

    def on_grid(self, side: str) -> list[str]:
        """Contenders that were run on the finer grid, those that need fewest bytes first."""
        names = [n for n in self.names(side) if len(self.needles(side, n)) > len(SHARES) + 2]
        return sorted(names, key=lambda name: (self.fewest_bytes(side, name), name))
