"""Draw the pictures of the documents, all of the shipped model.

    python -m benchmarks.pictures

Writes `docs/plan.png`, which is the picture that the demo draws, and `docs/pictures/*.png` with
`descriptions.json`, the words for those who cannot see them. Takes about ten minutes on one core,
most of them for the check of the profile and for the needles. `--profile` and `--needles` take
what an earlier run has measured. The picture of the report needs a browser and is taken by
`python -m benchmarks.report_picture`, from the profile that `--keep` leaves.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import kvbudget as kvb
from benchmarks.quality import memory_over_time, needle_grid
from benchmarks.quality.division import FUTURE_TOKENS, make_trials
from benchmarks.rows import Row, write_rows
from kvbudget import Profile, reference_model
from kvbudget.allocator.files import write_whole
from kvbudget.allocator.solvers import AdaKV, Hull, PyramidKV, SqueezeAttention, Uniform
from kvbudget.demo.run import SHOWN, DemoRun, DemoSize
from kvbudget.demo.trying import Reader
from kvbudget.heuristics import ObservationWindow
from kvbudget.pictures import (
    Picture,
    draw_check,
    draw_curves,
    draw_frontier,
    draw_memory,
    draw_needles,
    draw_plan,
)
from kvbudget.prose import built_in_sentences

NAME, DESCRIPTIONS = "the reference model", "descriptions.json"
CONTEXT_TOKENS, CALIBRATION, TESTS, CHECKED_PLANS = 1024, 8, 4, 60
BUDGETS = ("5%", "10%", "20%", "35%", "50%", "75%")
SOLVERS = (Uniform(), PyramidKV(), SqueezeAttention(), AdaKV(), Hull())
NEEDLE_SHARE, NEEDLE_SAMPLES = "10%", 8


def demo_plan(reader: Reader, sentences: list[str]) -> kvb.Plan:
    """The plan that the demo draws."""
    demo = DemoRun(reader, NAME, sentences, DemoSize())
    return demo.plan(demo.measure())[SHOWN]


def checked_profile(reader: Reader, sentences: list[str]) -> Profile:
    """Losses measured on the first half of the sentences, checked on the second."""
    half = len(sentences) // 2
    known = make_trials(reader, sentences[:half], CALIBRATION, 1000)
    fresh = make_trials(reader, sentences[half:], TESTS, 2000)
    profile = kvb.measure_profile(
        reader.model,
        [trial.ids for kind in known.values() for trial in kind],
        ObservationWindow(),
        future_tokens=FUTURE_TOKENS,
    )
    return kvb.check_profile(
        reader.model,
        replace(profile, model=NAME),
        [trial.ids for kind in fresh.values() for trial in kind],
        plans=CHECKED_PLANS,
        future_tokens=FUTURE_TOKENS,
    )


def needle_rows(reader: Reader, sentences: list[str], profile: Profile) -> list[Row]:
    """Needles found in contexts of the second half of the sentences."""
    fresh = sentences[len(sentences) // 2 :]
    return list(needle_grid.run(reader, fresh, profile, NEEDLE_SHARE, NEEDLE_SAMPLES))


def read_rows(path: Path) -> list[Row]:
    """Rows that an earlier run has written."""
    records = map(json.loads, path.read_text().splitlines())
    names = Row.__dataclass_fields__
    return [Row(**{name: record[name] for name in names}) for record in records]


def drawn(
    reader: Reader, sentences: list[str], profile: Profile, needles: list[Row]
) -> Iterator[tuple[str, Picture]]:
    """Every picture with the name of its file."""
    size = {"context_tokens": CONTEXT_TOKENS}
    comparison = kvb.compare(profile, budgets=BUDGETS, solvers=SOLVERS, **size)
    assert profile.check is not None, "it was just checked"
    yield "curves.png", draw_curves(profile)
    yield "frontier.png", draw_frontier(kvb.solve_path(profile, **size), comparison)
    yield "check.png", draw_check(profile.check, model=NAME)
    yield "needles.png", draw_needles(needle_grid.grids(needles, NEEDLE_SAMPLES))
    prompt = memory_over_time.make_prompt(reader, sentences[len(sentences) // 2 :])
    yield "memory.png", draw_memory(memory_over_time.traces(reader, profile, prompt))


def main() -> None:
    """Measure, draw, and write the words beside."""
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--docs", type=Path, default=Path("docs"))
    arguments.add_argument("--profile", type=Path, help="a checked profile, instead of measuring")
    arguments.add_argument("--needles", type=Path, help="rows of the needles, instead of running")
    arguments.add_argument("--keep", type=Path, help="a folder for the profile and the rows")
    chosen = arguments.parse_args()
    reader, sentences = Reader(*reference_model()), built_in_sentences()
    profile = Profile.load(chosen.profile) if chosen.profile else checked_profile(reader, sentences)
    print(profile, flush=True)
    known = chosen.needles
    rows = read_rows(known) if known else needle_rows(reader, sentences, profile)
    if chosen.keep is not None:
        chosen.keep.mkdir(parents=True, exist_ok=True)
        profile.save(chosen.keep / "profile.safetensors")
        write_rows(chosen.keep / "needle_grid.jsonl", rows)
    folder = chosen.docs / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    picture = draw_plan(demo_plan(reader, sentences))
    picture.save(chosen.docs / "plan.png")
    file = folder / DESCRIPTIONS
    # those that another command draws stay
    words = json.loads(file.read_text()) if file.exists() else {}
    words["../plan.png"] = str(picture)
    for name, picture in drawn(reader, sentences, profile, rows):
        picture.save(folder / name)
        words[name] = str(picture)
    text = json.dumps(words, indent=2) + "\n"
    write_whole(file, text.encode())
    print(text)


if __name__ == "__main__":
    main()
