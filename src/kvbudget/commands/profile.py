"""`kvbudget profile`: measure a model."""

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Model, SampleContext, Text
from .sample import Sample

if TYPE_CHECKING:
    from kvbudget.allocator import Profile
    from kvbudget.heuristics import CacheHeuristic, TokenHeuristic
    from kvbudget.heuristics.measures import Measure

MEASURED = 0
DEFAULT_MEASURE = "divergence"


def profile(
    model: Model = None,
    heuristic: Annotated[
        str,
        typer.Option(
            help="Token heuristic, chooses what a small cache keeps: a2sf, chunk_kv, corm, "
            "critical_kv, expected_attention, global_local, heavy_hitter (H2O), key_diff, "
            "key_norm, keyformer, kv_crush, kv_zip, lag_kv, lazy_eviction, leverage, "
            "non_causal_attention, observation_window (SnapKV), r_kv, random_order, scissorhands, "
            "sink_recent (StreamingLLM), tova, value_mass, window_kv, zip_cache, or one of an "
            "installed package."
        ),
    ] = "observation_window",
    measure: Annotated[
        str | None,
        typer.Option(
            help="What counts as loss: divergence (nats per token), ablation (the same without "
            "an estimate, slow), output_error or attention_mass (both without a backward pass).",
            show_default=DEFAULT_MEASURE,
        ),
    ] = None,
    importance: Annotated[
        str | None,
        typer.Option(
            help="Weigh whole caches by a published rule instead of measuring: baklava, cake, "
            "compress_kv, fisher, head_kv, passkey_heads (DuoAttention), residual_change "
            "(SqueezeAttention), retrieval_heads (RazorAttention), or one of an installed package.",
            show_default=False,
        ),
    ] = None,
    text: Text = None,
    context: SampleContext = 1024,
    samples: Annotated[int, typer.Option(min=1, help="Contexts to measure on.")] = 8,
    out: Annotated[Path, typer.Option(help="Where to write the profile.")] = Path(
        "profile.safetensors"
    ),
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep what is measured so far here, and go on from there if it was stopped.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure what each KV cache of a model loses when it is made smaller; once per model.

    Example: `kvbudget profile --model path/to/model --text like-mine.txt --out profile.safetensors`
    """
    from .named import cache_heuristic_named, measure_named, token_heuristic_named
    from .output import Input, check_can_write, print_json, say

    inputs: list[Input] = [("`--text`", text), ("`--model`", model)]
    check_can_write(out, inputs=inputs)
    if checkpoint is not None:
        check_can_write(checkpoint, "--checkpoint", inputs)
        if checkpoint.resolve() == out.resolve():
            raise ValueError(f"`--checkpoint` must not be the file of `--out`, but both are {out}.")
        if importance is not None:
            raise ValueError("`--checkpoint` is for measured losses: leave out `--importance`.")
    if measure is not None and importance is not None:
        raise ValueError("`--measure` is for measured losses: leave out `--importance`.")
    measured = _measure(
        model,
        token_heuristic_named(heuristic),
        measure_named(DEFAULT_MEASURE if measure is None else measure),
        None if importance is None else cache_heuristic_named(importance),
        Sample(text, context, samples),
        checkpoint,
    )
    measured.save(out)
    say(f"Wrote {out}. Next: kvbudget allocate {quote(str(out))} --budget 25% --context {context}")
    if json:
        print_json(_record(measured, out))
    else:
        typer.echo(str(measured))


def _measure(
    model: str | None,
    heuristic: "TokenHeuristic",
    measure: "Measure",
    importance: "CacheHeuristic | None",
    sample: Sample,
    checkpoint: Path | None,
) -> "Profile":
    """Measure the losses, or weigh the caches where a cache heuristic is given."""
    import kvbudget as kvb
    from kvbudget.allocator.settings import call_text
    from kvbudget.model_source import load_model, model_name
    from kvbudget.runtime import geometry_of

    loaded, tokenizer = load_model(model)
    sample.check_length(loaded)
    prompts = sample.prompts(tokenizer, MEASURED)
    if importance is None:
        measured = kvb.measure_profile(
            loaded,
            prompts,
            heuristic,
            measure=measure,
            future_tokens=sample.future_tokens,
            checkpoint=checkpoint,
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
