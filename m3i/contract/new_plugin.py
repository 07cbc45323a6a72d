"""What `m3i new-plugin NAME` writes: a distribution with one working component, its cases and passing tests."""

from __future__ import annotations

import importlib.util
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3i import __version__
from m3i.config.registry import HOOKS, PANELS, installed
from m3i.contract.run import canonical
from m3i.errors import M3IError

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
"""Names that pip accepts for a distribution. Source: packaging.python.org, name normalization."""
LONGEST_NAME = 40
RESERVED = ("joint", "null", "true", "false", "nan", "inf", "yes", "no", "on", "off")
"""Words that cannot name a component: the core's own, and those that YAML does not read as text."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """The component that a plugin of one kind starts from."""

    cls: str
    summary: str
    requirements: tuple[str, ...] = ()
    """Distributions that it imports besides M3I."""
    needs: str = ""
    """Overrides that a run needs besides choosing it."""


EXAMPLES = {
    "target": Example(
        cls="LocalModel",
        summary="A causal language model from a local folder in Hugging Face's layout.",
        needs=" target.path=FOLDER",
    ),
    "problems": Example(
        cls="ModularProducts",
        summary="Remainders of products, such as 12 * 34 mod 97, with two reference steps.",
    ),
    "observer": Example(
        cls="RepeatedLines",
        summary="Flags the first line that a trace repeats.",
    ),
    "attributor": Example(
        cls="LoudestLayers",
        summary="Votes for the layers whose residual update grows most at the incorrect token.",
        requirements=("numpy",),
    ),
    "selector": Example(
        cls="EveryNthLayer",
        summary="Picks every n-th candidate layer.",
    ),
    "trainer": Example(
        cls="RankBudget",
        summary="Runs dpo_lora with a total rank shared by the selected layers.",
    ),
    "exporter": Example(
        cls="StrictGraft",
        summary="Runs gguf_graft and refuses a file that does not reproduce the trained update.",
    ),
    "judge": Example(
        cls="ShorterRight",
        summary="Prefers a correct answer to an incorrect one, and the shorter of two correct answers.",
    ),
    "tracker": Example(
        cls="JsonLines",
        summary="Appends the verdict of each run and sweep to a file, one JSON line each.",
    ),
}
"""Group → its example."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names of a new plugin."""

    distribution: str
    """For pip: `acme-layers`."""
    package: str
    """For import: `acme_layers_m3i`."""
    component: str
    """On M3I's command line: `acme_layers`."""


def names_for(name: str, kind: str) -> Names:
    """The names derived from the distribution's.

    Raises:
        M3IError: pip, Python or M3I would not accept one of the names, or one is taken.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise M3IError(
            f"'{name}' cannot name a distribution; give ASCII letters, digits, '-', '_' and '.', beginning and ending "
            f"with a letter or digit, at most {LONGEST_NAME} characters, such as acme-{kind}"
        )
    distribution = canonical(name)
    words = distribution.split("-")
    component = "_".join(word for word in words if word != "m3i")
    package = "_".join(words if "m3i" in words else [*words, "m3i"])
    if not component or not component.isidentifier() or keyword.iskeyword(component) or component in RESERVED:
        raise M3IError(
            f"'{name}' would name a component '{component}', which no option can refer to; begin with a letter and "
            f"avoid words of Python and YAML, as in acme-{kind}"
        )
    taken = {canonical(entry.distribution) for entry in installed().entries.values()}
    if distribution in taken or importlib.util.find_spec(package) is not None:
        raise M3IError(
            f"'{name}': the package {package} or the distribution {distribution} is installed; choose another name"
        )
    entry = installed().entries.get((kind, component))
    if entry is not None:
        raise M3IError(f"'{name}': '{entry.distribution}' already provides {kind}={component}; choose another name")
    return Names(distribution=distribution, package=package, component=component)


def render(names: Names, kind: str) -> dict[str, str]:
    """The plugin's files: name relative to the distribution's folder → text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("m3i.contract"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # the output is Python, and the names are checked
    )
    example, major, minor = EXAMPLES[kind], *__version__.split(".")[:2]
    values: dict[str, Any] = {
        "distribution": names.distribution,
        "package": names.package,
        "name": names.component,
        "kind": kind,
        "hook": HOOKS[kind],
        "cls": example.cls,
        "summary": example.summary,
        "requirements": example.requirements,
        "versions": f">={major}.{minor},<{major}.{int(minor) + 1}",
        "usage": _usage(kind, names.component, example),
    }
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{names.package}/__init__.py": "__init__.py",
        f"{names.package}/{kind}.py": f"{kind}/component.py",
        f"{names.package}/contract_cases.py": f"{kind}/contract_cases.py",
        "tests/test_contract.py": "test_contract.py",
        f"tests/test_{kind}.py": f"{kind}/test.py",
    }
    return {file: environment.get_template(f"{name}.jinja").render(values) for file, name in templates.items()}


def write(folder: Path, files: dict[str, str]) -> None:
    """Writes the files. Raises M3IError if the folder is a file or is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise M3IError(f"{folder} exists and is not an empty folder; choose another name or --dir")
    try:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise M3IError(f"cannot write {error.filename or folder}: {error.strerror}; choose another --dir") from error


def _usage(kind: str, component: str, example: Example) -> str:
    """Overrides that use the component, next to a panel's default where that makes sense."""
    beside = {"observer": "checker+", "attributor": "votes+", "judge": "verifier+"}.get(kind, "")
    assert not beside or kind in PANELS
    return f"{kind}={beside}{component}{example.needs}"
