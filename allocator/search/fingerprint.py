"""What tells the study of one problem from that of another."""

import hashlib

import numpy as np

from kvbudget.allocator.problem import Problem

from .parameters import Parameters

ALIKE = ", layer_shapes=None"


def fingerprint(problem: Problem, parameters: Parameters, kind: str) -> str:
    """SHA-256 of everything that the values of a study's trials depend on.

    Args:
        problem: What is searched.
        parameters: What the searched numbers mean.
        kind: What is measured, and how many objectives there are.
    """
    digest = hashlib.sha256()
    for array in (problem.loss, problem.cost_bytes, problem.sample_loss):
        digest.update(array_bytes(array))
    words = (problem.budget_bytes, problem.risk, parameters, kind, origin_text(problem))
    digest.update(repr(words).encode())
    return digest.hexdigest()


def array_bytes(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None) -> bytes:
    """Shape and content of an array."""
    return b"none" if array is None else repr(array.shape).encode() + array.tobytes()


def origin_text(problem: Problem) -> str:
    """The model and the request behind a problem."""
    origin = problem.origin
    if origin is None:
        return "arrays"
    tokens = origin.heuristic, origin.heuristic_settings, origin.capacity_tokens.tolist()
    words = origin.model, origin.geometry, origin.context_tokens, origin.batch_size, tokens
    # as studies were told apart when all layers were alike, so that these can still be resumed
    return repr(words).replace(ALIKE, "")
