"""Arguments of subcommands that have options."""

from __future__ import annotations

import argparse
from typing import NoReturn

from m3i.errors import M3IError


class Parser(argparse.ArgumentParser):
    """Raises M3IError, with the usage, instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """A mistake in the arguments."""
        raise M3IError(f"{message}; {self.usage}")
