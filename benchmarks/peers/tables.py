"""Tables of the page, as Markdown."""

from collections.abc import Sequence

from benchmarks.peers.arms import HEURISTICS, Arm
from benchmarks.peers.attempt import FULL_CACHE
from benchmarks.peers.cells import KVPRESS, OURS, Cost
from benchmarks.peers.findings import Findings
from benchmarks.peers.shares import NEEDLES, SHARES
from kvbudget.allocator.solvers import Uniform

LOOKUPS = "lookups"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def number(value: float) -> str:
    """Three figures, or a dash where there is nothing."""
    if value != value:
        return "-"
    return f"{value:.3f}" if value >= 0.0995 else f"{value:.2g}"


def percent(value: float) -> str:
    """A share in percent, or a dash."""
    return "-" if value != value else f"{100 * value:.0f} %"


def headline(found: Findings) -> list[str]:
    """At each share the best of each class."""
    rows = []
    for kept in SHARES:
        for label, side, name in _classes(found, kept):
            cells = found.of(side, name, kept)
            rows.append(
                [
                    percent(kept),
                    label,
                    name,
                    percent(max(cell.held_share for cell in cells.values())),
                    number(found.mean(side, name, kept)),
                    percent(found.exact(side, name, kept, NEEDLES)),
                    percent(found.exact(side, name, kept, LOOKUPS)),
                ]
            )
    head = ["kept", "best of", "which", "held", "mean divergence", "needles", "lookups"]
    return table(head, rows)


def _classes(found: Findings, kept: float) -> list[tuple[str, str, str]]:
    return [
        ("press, frees, reads once", KVPRESS, found.best(kept, freeing=True, read_once=True)),
        ("press, frees", KVPRESS, found.best(kept, freeing=True)),
        ("press, masks", KVPRESS, found.best(kept, freeing=False)),
        ("**ours**, reads once", OURS, found.chosen(kept, read_once=True)),
        ("**ours**", OURS, found.chosen(kept)),
    ]


def everything(found: Findings, side: str) -> list[str]:
    """Every contender of a side: mean divergence and exact answers at each share."""
    rows = []
    shown = [FULL_CACHE] if side == KVPRESS else []
    for name in shown + _by_loss(found, side):
        shares = (1.0,) * len(SHARES) if name == FULL_CACHE else SHARES
        cells = [cell for kept in shares for cell in found.of(side, name, kept).values()]
        held = [max((c.held_share for c in cells if c.kept == k), default=0) for k in shares]
        rows.append(
            [
                name,
                *[number(found.mean(side, name, kept)) for kept in shares],
                *[percent(found.exact(side, name, kept, NEEDLES)) for kept in shares],
                *[percent(found.exact(side, name, kept, LOOKUPS)) for kept in shares],
                " / ".join(f"{100 * share:.0f}" for share in held if share),
                str(min((cell.block for cell in cells if cell.block), default=0)),
            ]
        )
    shares = [percent(kept) for kept in SHARES]
    head = ["", *[f"KL {s}" for s in shares], *[f"needles {s}" for s in shares]]
    return table([*head, *[f"lookups {s}" for s in shares], "held %", "block"], rows)


def _by_loss(found: Findings, side: str) -> list[str]:
    def loss(name: str) -> float:
        known = [found.mean(side, name, kept) for kept in SHARES]
        return sum(value for value in known if value == value) + 10 * sum(v != v for v in known)

    return sorted(found.names(side), key=loss)


def by_kind(found: Findings) -> list[str]:
    """Chosen plan and best press on each kind, and how many presses lose less there."""
    rows = []
    for kept in SHARES:
        ours = found.of(OURS, found.chosen(kept), kept)
        for kind in found.kinds():
            cells = [found.of(KVPRESS, name, kept).get(kind) for name in found.names(KVPRESS)]
            best = min((c for c in cells if c and c.divergence), key=lambda cell: cell.mean)
            better = found.lost_to(kept, kind)
            names = ", ".join(f"{cell.name} ({number(cell.mean)})" for cell in better)
            rows.append(
                [
                    percent(kept),
                    kind,
                    number(ours[kind].mean),
                    f"{best.name} ({number(best.mean)})",
                    found.won(kept, kind, best),
                    f"{len(better)}: {names}" if better else "none",
                ]
            )
    head = ["kept", "prompts", "ours", "best press", "ours loses less on", "presses that lose less"]
    return table(head, rows)


def told_apart(found: Findings) -> list[str]:
    """The same heuristic as a press, under equal shares, and under a solved division."""
    rows = []
    for heuristic, press in HEURISTICS.items():
        if not press:
            continue
        names = [(KVPRESS, press), (OURS, Arm(heuristic, Uniform()).name)]
        names += [(OURS, Arm(heuristic).name)]
        cells = [number(found.mean(side, name, kept)) for kept in SHARES for side, name in names]
        rows.append([press, type(heuristic).__name__, *cells])
    three = ("press", "ours, equal", "ours, solved")
    head = ["press", "ours", *[f"{percent(kept)} {each}" for kept in SHARES for each in three]]
    return table(head, rows)


def costs(all_costs: Sequence[Cost]) -> list[str]:
    """Time and memory over those of the full cache."""
    rows = [
        [
            each.side,
            each.name,
            f"{each.prefill_ratio:.2f}",
            f"{each.token_ratio:.2f}",
            f"{each.peak_ratio:.2f}",
            f"{each.alive_ratio:.2f}",
        ]
        for each in sorted(all_costs, key=lambda cost: (cost.side, cost.prefill_ratio))
    ]
    return table(["", "", "prefill", "each token", "peak", "alive afterwards"], rows)


def fewest(found: Findings) -> list[str]:
    """Bytes needed to find nearly all needles."""
    rows = [
        [
            side,
            name,
            f"{100 * found.fewest_bytes(side, name):.1f} %",
            ", ".join(f"{100 * held:.1f} %: {100 * exact:.0f}" for held, exact in shown),
        ]
        for side in (KVPRESS, OURS)
        for name in found.on_grid(side)
        for shown in [found.needles(side, name)]
    ]
    return table(["", "", "bytes needed", "held: needles found, %"], rows)
