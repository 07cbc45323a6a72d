"""Errors that a user can act on: each says what is wrong, what was given and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class M3IError(Exception):
    """An error for the user, shown on the command line as one clear line without a traceback."""


class ConfigError(M3IError):
    """An option, a component's name or a combination of these is invalid."""


class PluginError(M3IError):
    """A plugin does not load or breaks the rules; the message names its distribution."""


class InputError(M3IError):
    """A file or folder given by the user is unusable; the message names it, and the line where there is one."""


class StoreError(M3IError):
    """The artifact store cannot be read or written."""


class StageError(M3IError):
    """A stage ran, but the experiment cannot continue from its result."""


class JobError(M3IError):
    """A job of a multirun failed, in this process or in a launcher's worker; the other jobs went on."""


class SweepError(M3IError):
    """Some jobs of a sweep did not finish; the message says which and why. Those that finished are compared."""


class TrackingError(M3IError):
    """A tracker failed after all results were written; the message says where they are."""


class DeadTensorError(StageError):
    """Trained tensors make no difference in the exported model."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns the end of a sentence: `; did you mean 'lora'?`, or a full stop if no known word is close."""
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else "."
