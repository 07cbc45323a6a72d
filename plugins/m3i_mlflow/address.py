"""MLflow addresses: one with a password never enters a config and never appears in a message."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

ENVIRONMENT = "MLFLOW_TRACKING_URI"
ACCEPTED = (
    f"an address without user name, password or query; put one that needs them in the variable {ENVIRONMENT}, or set "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
)
ON_DISK = ("", "file", "sqlite")
"""Schemes followed by a path, in which an @ is an ordinary character."""


def scheme_of(address: str) -> str:
    """`http`, `sqlite`, `postgresql+psycopg2`; empty for a path and for words such as `databricks`."""
    before, mark, _ = address.partition("://")
    return before.lower() if mark else ""


def holds_credentials(address: str) -> bool:
    """Whether the address has a part that may hold a secret, whatever it contains."""
    if scheme_of(address) in ON_DISK:
        _, _, rest = address.partition("://")
        host = rest.partition("/")[0] if rest else ""
        return "@" in host or "?" in address
    return any(sign in address for sign in "@?#")


def in_use(address: str) -> str:
    """The address that MLflow will use, if it is known here: the option, else the variable."""
    return address or os.environ.get(ENVIRONMENT, "")


def without_credentials(text: str) -> str:
    """The text without the variable's address, user name and password, in every form in which MLflow shows them."""
    address = os.environ.get(ENVIRONMENT, "")
    if not address or not holds_credentials(address):
        return text
    user_info = address.partition("://")[2].rpartition("@")[0]
    name, _, password = user_info.partition(":")
    query = urlsplit(address).query
    secrets = [address, user_info, password, query, *(unquote(s) for s in (user_info, password, query))]
    secrets += [name] if not password else []
    for secret in sorted({s for s in secrets if len(s) >= 3}, key=len, reverse=True):
        text = text.replace(secret, f"[{ENVIRONMENT}]")
    return text
