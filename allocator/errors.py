"""Errors that kvbudget raises on purpose.

A bad argument raises a plain ``ValueError`` or ``TypeError``. Everything else a user can meet
derives from :class:`KVBudgetError`.
"""


class KVBudgetError(Exception):
    """Base of every error that is about budgets, plans, files or models."""


class InfeasibleBudget(KVBudgetError, ValueError):
    """No plan fits the budget, not even the one with every cache at its lowest level."""


class UnsupportedModel(KVBudgetError, NotImplementedError):
    """The model has a layer that cannot be served exactly."""


class BadFile(KVBudgetError, ValueError):
    """A file is missing, damaged, foreign, or written by a newer version."""


class WrongModel(KVBudgetError, ValueError):
    """A plan or profile was made for another model."""
