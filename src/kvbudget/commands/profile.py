"""`kvbudget profile`: measure a model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Model, Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kvbudget.allocator import Profile
    from kvbudget.heuristics import CacheHeuristic, TokenHeuristic
    from kvbudget.heuristics.measures import Measure


def profile(
    model: Model = None,
    heuristic: Annotated[
        str,
        typer.Option(
            help="Token heuristic, chooses what a small cache keeps: observation_window, "
            "heavy_hitter, key_norm or sink_recent."
        ),
    ] = "observation_window",
    measure: Annotated[
        str,
        typer.Option(
            help="What counts as loss: divergence (nats per token), output_error or "
            "attention_mass (both without a backward pass)."
        ),
    ] = "divergence",
    importance: Annotated[
        str | None,
        typer.Option(
            help="Cache heuristic, such as baklava: weigh whole caches by a published rule "
            "instead of measuring.",
            show_default=False,
        ),
    ] = None,
    text: Text = None,
    context: Annotated[
        int,
        typer.Option(
            "--context",
            "--context-tokens",
            min=64,
            metavar="TOKENS",
            help="Length of each context in tokens.",
        ),
    ] = 1024,
    samples: Annotated[int, typer.Option(min=1, help="Contexts to measure on.")] = 8,
    out: Annotated[Path, typer.Option(help="Where to write the profile.")] = Path(
        "profile.safetensors"
    ),
    json: Json = False,
) -> None:
    """Measure what each KV cache of a model loses when it is made smaller; once per model.

    Example: `kvbudget profile --model path/to/model --text like-mine.txt --out profile.safetensors`
    """
    from .named import cache_heuristic_named, measure_named, token_heuristic_named
    from .output import check_can_write, print_json, say

    check_can_write(out)
    measured = _measure(
        model,
        token_heuristic_named(heuristic),
        measure_named(measure),
        None if importance is None else cache_heuristic_named(importance),
        Sample(text, context, samples),
    )
    measured.save(out)
    say(f"Wrote {out}.")
    if json:
        print_json(_record(measured, out))
    else:
        typer.echo(str(measured))


def _measure(
    model: str | None,
    heuristic: "TokenHeuristic",
    measure: "Measure",
    importance: "CacheHeuristic | None",
    sample: "Sample",
) -> "Profile":
    """Measure the losses, or weigh the caches where a cache heuristic is given."""
    import kvbudget as kvb
    from kvbudget.allocator.settings import call_text
    from kvbudget.model_source import check_length, load_model, model_name
    from kvbudget.runtime import geometry_of

    loaded, tokenizer = load_model(model)
    check_length(loaded, sample.context_tokens + sample.future_tokens)
    prompts = sample.prompts(tokenizer)
    if importance is None:
        measured = kvb.measure_profile(
            loaded, prompts, heuristic, measure=measure, future_tokens=sample.future_tokens
        )
        return replace(measured, model=model_name(model))
    rule = call_text(kvb.heuristics.name_of(importance), kvb.heuristics.settings_of(importance))
    return kvb.Profile.from_importance(
        kvb.measure_importance(loaded, prompts, importance),
        geometry_of(loaded),
        model=model_name(model),
        heuristic=kvb.heuristics.name_of(heuristic),
        heuristic_settings=kvb.heuristics.settings_of(heuristic),
        made_by=f"{rule} over {len(prompts)} prompts",
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """What to measure on.

    Args:
        text: A text like those the model will read; None for built-in prose with facts to find.
        context_tokens: Length of each context.
        count: Number of contexts.
    """

    text: Path | None
    context_tokens: int
    count: int

    @property
    def future_tokens(self) -> int:
        """Tokens behind each context that ask for what was kept."""
        return max(32, self.context_tokens // 8)

    def prompts(self, tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
        """Token ids of each context and its future.

        Raises:
            ValueError: The text is shorter than one context and its future.
        """
        from kvbudget.prose import built_in_sentences, read_text
        from kvbudget.trials import TrialMaker, windows

        if self.text is not None:
            ids = tokenizer(read_text(self.text), add_special_tokens=False)["input_ids"]
            return windows(ids, self.context_tokens + self.future_tokens, self.count)
        maker = TrialMaker(built_in_sentences(), tokenizer, self.context_tokens, self.future_tokens)
        return [trial.ids for trial in maker.mixed(self.count, seed=0)]


def _record(profile: "Profile", out: Path) -> dict[str, object]:
    return {
        "out": str(out),
        "model": profile.model,
        "geometry": profile.geometry.to_json(),
        "heuristic": profile.heuristic,
        "measure": profile.measure,
        "samples": len(profile.sample_loss),
        "kept_fraction": profile.kept_fraction.tolist(),
        "loss": profile.loss.tolist(),
    }
