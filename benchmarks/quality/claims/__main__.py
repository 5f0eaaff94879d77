"""What papers claim, tried on the shipped model.

    python -m benchmarks.quality.claims --run
    python -m benchmarks.quality.claims --write docs/claims.md

The first runs every arm of every claim and adds a line to `benchmarks/results/claims.jsonl` as soon
as it is known; started again it goes on where it was stopped. The second makes the page of these
lines, in a second. Both together run what is missing and write the page.
"""

import argparse
from pathlib import Path

from kvbudget.allocator.files import write_whole
from kvbudget.prose import built_in_sentences, file_sentences

from .everything import CLAIMS
from .page import page
from .record import read_lines, read_records
from .running import Size, run

RESULTS = Path(__file__).parents[2] / "results" / "claims.jsonl"


def main() -> None:
    """Read the arguments; run, write, or both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="store_true", help="run what the rows do not hold yet")
    parser.add_argument("--rows", type=Path, default=RESULTS, help="the rows, one JSON line each")
    parser.add_argument(
        "--measured",
        type=Path,
        default=Path("build/claims"),
        help="folder for what is measured once; an empty one for other prompts or another text",
    )
    parser.add_argument("--write", type=Path, help="page to write")
    parser.add_argument("--text", type=Path, help="prose to use; the built-in text by default")
    parser.add_argument("--only", nargs="+", metavar="PAPER", help="run these alone")
    parser.add_argument("--prompts", type=int, default=12, help="prompts of each kind")
    parser.add_argument(
        "--calibration", type=int, default=4, help="calibration prompts of each kind"
    )
    chosen = parser.parse_args()
    if chosen.run:
        claims = [claim for claim in CLAIMS if not chosen.only or claim.paper in chosen.only]
        prose = chosen.text
        sentences = built_in_sentences() if prose is None else file_sentences(prose)
        size = Size(chosen.prompts, chosen.calibration)
        run(claims, sentences, size, chosen.rows, chosen.measured)
    if chosen.write is not None:
        text = page(CLAIMS, read_records(chosen.rows), read_lines(chosen.rows))
        write_whole(chosen.write, text.encode())


if __name__ == "__main__":
    main()
