"""What is lost against the full cache: the one place where either library is scored.

Imports nothing of either of them.
"""

from torch import Tensor

from benchmarks.peers.trial import PeerTrial


def score(trial: PeerTrial, full: Tensor, found: Tensor) -> dict[str, object]:
    """Compare what is expected behind each token of the future with what the full cache expects.

    An answer counts if every one of its tokens and its terminator is the likeliest behind the
    true tokens before it, which is so just when greedy generation would give that answer.

    Args:
        trial: What was read.
        full: Log-probabilities with the full cache, [future, vocabulary], float32.
        found: The same with another cache.

    Returns:
        ``divergence``: mean Kullback-Leibler divergence from the full cache, nats per token.
        ``loss``: mean negative log-probability of the true next token, nats per token.
        ``exact``: for each answer, 1 if it is exact, else 0.
    """
    best = found.argmax(-1).tolist()
    truth = list(trial.future)
    behind = found[:-1].gather(1, found.new_tensor(truth[1:]).long()[:, None])
    exact = [int(best[start - 1 : end] == truth[start : end + 1]) for start, end in trial.answers]
    return {
        "divergence": float((full.exp() * (full - found)).sum(-1).mean()),
        "loss": -float(behind.mean()),
        "exact": exact,
    }
