"""M3I: which layers carry a model's reasoning failures, does training only those help, and how sure can one be."""

from m3i.component import Component, option, require
from m3i.hookspecs import hookimpl

__version__ = "0.1.0"
__all__ = ["Component", "__version__", "hookimpl", "option", "require"]
