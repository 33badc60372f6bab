"""The errors of the contract, apart from it: ``benchmark.api`` brings torch, which reading a table does not need."""

from __future__ import annotations


class AdlbenchError(Exception):
    """Something the user can mend. The message names the thing, the value and the remedy."""


class DataError(AdlbenchError):
    """Data that is absent, damaged, or not what its schema says."""
