"""Pinned snapshots of hub repositories: from the local cache, or fetched after every check that can come first."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

from m3i import ConfigError, InputError, TargetInfo
from m3i.models.huggingface.facts import (
    HASHED_SUFFIXES,
    describe_config,
    guess_family,
    read_config,
    require_exportable,
    weight_files,
)
from m3i.models.huggingface.resources import require_disk, require_memory

PATTERNS = tuple(f"*{suffix}" for suffix in HASHED_SUFFIXES)
"""Files of a repository that make up the model; code and pickles are not fetched."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_local(path: str) -> bool:
    """Whether `path` means a folder: it exists, or is written as a path rather than as `owner/name`."""
    return Path(path).expanduser().exists() or not _REPOSITORY.fullmatch(path) or path.startswith(".")


def require_commit(repository: str, revision: str) -> None:
    """Raises ConfigError unless the revision is a full commit: a branch or a tag can move under a finished result."""
    if not _COMMIT.fullmatch(revision):
        given = f"got {revision!r}" if revision else "none was given"
        raise ConfigError(
            f"target.revision must pin {repository} to a commit (40 hexadecimal digits), {given}; commits are listed "
            f"at https://huggingface.co/{repository}/commits/main"
        )


def pinned_snapshot(repository: str, revision: str, *, device: str, dtype: str) -> Path:
    """Returns the folder with a repository's files at a commit, fetching them if the local cache lacks them.

    The configuration is fetched first, and architecture, memory and disk are checked before any large file is.

    Raises:
        InputError: The repository cannot be reached or read, or memory or disk space is too small.
        ConfigError: The revision is not a commit, or the architecture cannot be exported.
    """
    from huggingface_hub import snapshot_download

    require_commit(repository, revision)
    cached = _cached_snapshot(repository, revision)
    if cached is not None:
        return cached
    _check_before_fetching(repository, revision, device, dtype)
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(PATTERNS)))
    except _hub_errors() as error:
        raise _unreachable(repository, revision, error) from None


def _cached_snapshot(repository: str, revision: str) -> Path | None:
    """The snapshot in the local cache if it is complete, without using the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        patterns = list(PATTERNS)
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True))
        read_config(folder)
        weight_files(folder)
    except (LocalEntryNotFoundError, InputError):
        return None
    return folder


def _check_before_fetching(repository: str, revision: str, device: str, dtype: str) -> None:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        config_file = hf_hub_download(repository, "config.json", revision=revision)
        files = HfApi().model_info(repository, revision=revision, files_metadata=True).siblings or []
    except _hub_errors() as error:
        raise _unreachable(repository, revision, error) from None
    config = read_config(Path(config_file).parent)
    require_exportable(config, repository)
    require_memory(_described(repository, revision, config, device, dtype))
    wanted = [f for f in files if any(fnmatch.fnmatch(f.rfilename, p) for p in PATTERNS)]
    if not any(f.rfilename.endswith(".safetensors") for f in wanted):
        raise InputError(f"{repository} at {revision} has no safetensors weights; other formats are not read")
    require_disk(Path(HF_HUB_CACHE), sum(f.size or 0 for f in wanted), f"fetching {repository}")


def _described(repository: str, revision: str, config: dict[str, Any], device: str, dtype: str) -> TargetInfo:
    family = guess_family(repository, config)
    return describe_config(config, name=repository, revision=revision, family=family, device=device, dtype=dtype)


def _hub_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The first base is the HTTP library's own error, for failed connections; the library differs between versions.
    return (*HfHubHTTPError.__bases__, HFValidationError, OSError)


def _unreachable(repository: str, revision: str, error: Exception) -> InputError:
    cause: BaseException = error
    while cause.__cause__ is not None:  # the client wraps "connection refused" in general advice
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    reason = lines[0] if lines else type(cause).__name__
    return InputError(
        f"{repository} at {revision[:12]} is not in the local Hugging Face cache and could not be fetched ({reason}); "
        f"fetch it elsewhere with 'hf download {repository} --revision {revision}', or give target.path=FOLDER"
    )
