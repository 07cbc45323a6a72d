"""Errors that a user can act on: each names what is wrong, what was given, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class M3IError(Exception):
    """An error for the user: one clear line, no traceback on the command line."""


class ConfigError(M3IError):
    """An option, a component name or a combination of them cannot be used."""


class PluginError(M3IError):
    """A plugin could not be loaded or breaks the rules; the message names its distribution."""


class InputError(M3IError):
    """A file or a folder that the user gave cannot be used; the message names it and the line."""


class StoreError(M3IError):
    """The artifact store cannot be read or written."""


class StageError(M3IError):
    """A stage ran and its result is not fit to go on with."""


class JobError(M3IError):
    """A job of a multirun failed, in this process or in a launcher's worker; the others went on."""


class SweepError(M3IError):
    """Jobs of a sweep did not finish; the message says which and why. What finished is compared."""


class TrackingError(M3IError):
    """A tracker failed after everything was written; the message says where the results are."""


class DeadTensorError(StageError):
    """Tensors that were trained make no difference in the exported model."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence: `; did you mean 'lora'?`, or a full stop when nothing is near."""
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else "."
