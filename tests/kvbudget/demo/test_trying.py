"""What the demo measures is what it says."""

import pytest
import torch

import kvbudget as kvb
from kvbudget.demo.trying import Reader, divergence, full_cache_bytes
from kvbudget.runtime import geometry_of
from kvbudget.trials import Trial


@pytest.fixture(scope="module")
def reader():
    return Reader(*kvb.reference_model())


@pytest.fixture
def trial():
    ids = torch.randint(2, 2000, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    return Trial(ids[:48], ids[48:], answers=((2, 5), (6, 8)))


def test_divergence_is_zero_for_equal_and_ln_two_for_a_halved_choice():
    sure = torch.tensor([[0.0, -torch.inf]])
    torn = torch.full((1, 2), 0.5).log()
    assert divergence(torn, torn) == 0
    assert divergence(torch.tensor([[0.0, -1e9]]), torn) == pytest.approx(0.6931, abs=1e-4)
    assert divergence(sure.clamp_min(-1e9).repeat(3, 1), torn.repeat(3, 1)) == pytest.approx(
        0.6931, abs=1e-4
    )


def test_reading_in_two_parts_equals_reading_at_once(reader, trial):
    expected = reader.predict(trial, reader.read_context(trial))
    with torch.no_grad():
        logits = reader.model(torch.tensor([trial.ids])).logits[0, len(trial.context) :]
    torch.testing.assert_close(expected, logits.log_softmax(-1), atol=1e-4, rtol=1e-4)


def test_bytes_of_the_full_cache_are_those_of_the_geometry(reader, trial):
    cache = reader.read_context(trial)
    assert full_cache_bytes(cache) == geometry_of(reader.model).full_bytes(len(trial.context))


def test_an_answer_is_exact_only_if_all_its_tokens_are_and_no_digit_follows(reader, trial):
    wanted = torch.tensor(trial.future)
    expected = torch.zeros(len(wanted), 2048)
    expected[torch.arange(len(wanted) - 1), wanted[1:]] = 1.0
    letter, digit = (reader.tokenizer(text)["input_ids"][0] for text in ("a", "7"))
    expected[4], expected[7] = 0, 0
    expected[4, letter] = expected[7, letter] = 1.0
    assert [exact for _, exact in reader.said(trial, expected)] == [True, True]
    expected[7, digit] = 2.0
    assert [exact for _, exact in reader.said(trial, expected)] == [True, False]
    expected[2, letter] = 2.0
    assert [exact for _, exact in reader.said(trial, expected)] == [False, False]


def test_answers_predicted_behind_the_true_ones_are_those_of_generation(reader):
    from kvbudget.prose import built_in_sentences
    from kvbudget.trials import TrialMaker

    maker = TrialMaker(built_in_sentences(), reader.tokenizer, 200, 60)
    exact = 0
    for seed in range(3):
        trial = maker.needles(seed)
        start, end = trial.answers[0]
        expected = reader.predict(trial, reader.read_context(trial))
        (_, said), *_ = reader.said(trial, expected)
        ids = torch.tensor([trial.context + trial.future[:start]])
        new = reader.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=end - start, do_sample=False
        )[0, ids.shape[1] :].tolist()
        assert (new == trial.future[start:end]) >= said
        exact += said
    assert exact >= 0


def test_generation_goes_on_behind_the_context(reader, trial):
    text, speed = reader.generate(trial, reader.read_context(trial), new_tokens=5)
    ids = torch.tensor([[*trial.context, trial.future[0]]])
    plain = reader.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=5,
        min_new_tokens=5,
        do_sample=False,
    )
    assert text == reader.tokenizer.decode(plain[0, ids.shape[1] :])
    assert speed > 0
