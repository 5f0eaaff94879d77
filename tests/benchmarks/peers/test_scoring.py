"""The one function that scores both libraries."""

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, one_hot


@pytest.fixture
def certain(trial):
    """Log-probabilities that expect the true next token everywhere."""

    def make(*wrong):
        truth = torch.tensor([*trial.future[1:], 0])
        for place in wrong:
            truth[place] = (truth[place] + 1) % 10
        return (5.0 * one_hot(truth, 10)).log_softmax(-1)

    return make


def test_an_answer_is_exact_if_it_and_its_end_are_expected(peers, trial, certain):
    score = peers("scoring").score
    assert score(trial, certain(), certain())["exact"] == [1]


@pytest.mark.parametrize("place", [1, 2, 3])
def test_one_other_token_in_the_answer_or_at_its_end_makes_it_wrong(peers, trial, certain, place):
    found = peers("scoring").score(trial, certain(), certain(place))
    assert found["exact"] == [0]


@pytest.mark.parametrize("place", [0, 4])
def test_tokens_beside_the_answer_do_not_matter_to_it(peers, trial, certain, place):
    assert peers("scoring").score(trial, certain(), certain(place))["exact"] == [1]


def test_divergence_is_that_of_torch_and_zero_for_the_full_cache_itself(peers, trial):
    full, other = torch.randn(2, 8, 10, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    score = peers("scoring").score
    wanted = kl_div(other, full, log_target=True, reduction="batchmean")
    assert score(trial, full, other)["divergence"] == pytest.approx(float(wanted), rel=1e-5)
    assert score(trial, full, full)["divergence"] == 0


def test_loss_is_that_of_the_true_next_tokens(peers, trial):
    found = torch.randn(8, 10, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    wanted = cross_entropy(found[:-1], torch.tensor(trial.future[1:]))
    assert peers("scoring").score(trial, found, found)["loss"] == pytest.approx(float(wanted))
