"""What the examples read: real prose in which facts are hidden, and a question about one of them.

The shipped model was trained to answer such questions. For a model of your own take texts like
those that it will read.
"""

from kvbudget.needles import NeedlePrompt, make_needle_prompt
from kvbudget.prose import built_in_sentences


def haystack(tokenizer, seed: int, tokens: int = 512) -> NeedlePrompt:
    """A prompt of at most so many tokens (`text`), and its `answer`."""
    return make_needle_prompt(
        built_in_sentences(), lambda text: tokenizer(text)["input_ids"], tokens=tokens, seed=seed
    )


def calibration(tokenizer, count: int = 3, tokens: int = 512) -> list[str]:
    """Prompts to measure on, each with its answer behind it."""
    found = [haystack(tokenizer, seed, tokens) for seed in range(count)]
    return [prompt.text + prompt.answer for prompt in found]
