"""Checks for components of every kind. Each returns, or raises ContractError."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
import tempfile

from m3i.component import Component, field_docs, plain, resolved_fields
from m3i.config.registry import INTERFACES
from m3i.contract.subject import Subject
from m3i.errors import ConfigError, did_you_mean

LONGEST_SUMMARY = 120
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "llama_cpp", "scipy", "gguf", "reasoning_gym", "jinja2"}
HEAVY |= {"anthropic", "litellm", "google.genai", "openai", "pandas", "matplotlib", "mlflow", "sqlalchemy", "pyarrow"}
"""Modules that are slow to import."""


def has_a_case_of_its_own_options(subject: Subject) -> None:
    """Its row in the table of cases names only options that exist."""
    known = [option.name for option in subject.options]
    for name in sorted(subject.case.names() - set(known)):
        subject.fail(
            f"CASES['{subject}'] names it, but there is no such option{did_you_mean(name, known)}", option=name
        )


def is_documented(subject: Subject) -> None:
    """The first line of its docstring is a sentence of at most 120 characters; every option has a docstring."""
    summary, cls = subject.entry.summary(), subject.entry.cls
    if not summary.endswith((".", "?")):
        subject.fail(f"{cls.__qualname__} needs a docstring whose first line is a sentence; it reads {summary!r}")
    if len(summary) > LONGEST_SUMMARY:
        subject.fail(
            f"the first line of {cls.__qualname__}'s docstring has {len(summary)} characters; shorten it to "
            f"{LONGEST_SUMMARY}"
        )
    docs = field_docs(cls)
    for option in subject.options:
        if not docs.get(option.name):
            subject.fail("it has no documentation; put a docstring below the field", option=option.name)


def is_made_with_its_defaults(subject: Subject) -> None:
    """With its defaults, and values for options without one, it is a component with every method of its interface."""
    try:
        component = subject.make()
    except ConfigError as error:
        subject.fail(f"it refuses its own defaults ({error}); give defaults that __post_init__ accepts")
    if not isinstance(component, Component):
        subject.fail(f"{type(component).__qualname__} is not derived from m3i.Component; derive it from that class")
    interface = INTERFACES[subject.entry.group]
    if not isinstance(component, interface):
        subject.fail(f"{type(component).__qualname__} lacks a part of m3i.{interface.__name__}; add it (docs/hooks.md)")


def has_the_methods_of_its_interface(subject: Subject) -> None:
    """Its methods, `check` included, take the interface's parameters and are async where the interface's are."""
    cls, interface = subject.entry.cls, INTERFACES[subject.entry.group]
    for name, wanted in {**vars(interface), "check": Component.check}.items():
        if name.startswith("_") or not inspect.isfunction(wanted):
            continue
        got = getattr(cls, name)
        expected, there = (list(inspect.signature(function).parameters) for function in (wanted, got))
        if there != expected:
            subject.fail(f"{name}({', '.join(there)}) must be {name}({', '.join(expected)})")
        if inspect.iscoroutinefunction(got) != inspect.iscoroutinefunction(wanted):
            word = "async def" if inspect.iscoroutinefunction(wanted) else "a plain def"
            subject.fail(f"{name}() must be {word}")


def names_installed_libraries(subject: Subject) -> None:
    """`libraries` is a tuple of installed distributions, whose versions enter the store's key."""
    libraries = subject.entry.cls.libraries
    if not isinstance(libraries, tuple):
        subject.fail(f"libraries must be a tuple of distributions, not a {type(libraries).__name__}")
    for distribution in libraries:
        try:
            importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            subject.fail(
                f"libraries names '{distribution}', which is not installed; give names that pip knows, and list them "
                "among the distribution's dependencies"
            )


def has_options_with_a_json_form(subject: Subject) -> None:
    """Every option that can change a result can be written as JSON, for the store's key and the report."""
    component = subject.make()
    for option in subject.options:
        try:
            plain(getattr(component, option.name))
        except TypeError as error:
            subject.fail(f"{error}; use one of the types in docs/hooks.md", option=option.name)
    fields = resolved_fields(component)
    for name, value in fields.items():
        try:
            same = json.loads(json.dumps(value, allow_nan=False)) == value
        except ValueError as error:
            subject.fail(f"its value cannot be written as JSON ({error}); give a finite default", option=name)
        if not same:
            subject.fail(
                "its value changes when written to JSON and read back; use one of the types in docs/hooks.md",
                option=name,
            )


IMPORT = """
import importlib, json, sys
module, cls, needs, heavy = json.load(sys.stdin)
getattr(importlib.import_module(module), cls)(**needs)
print("", json.dumps(sorted(set(heavy) & set(sys.modules))), sep="\\n")
"""


def imports_nothing_heavy(subject: Subject) -> None:
    """Importing and creating it imports no heavy module, since `m3i plugins` and `--help` load every plugin."""
    cls = subject.entry.cls
    subject.make()
    work = json.dumps([cls.__module__, cls.__qualname__, plain(subject.case.needs), sorted(HEAVY)])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-c", IMPORT],
            input=work.encode(),
            capture_output=True,
            check=False,
            cwd=elsewhere,
            env=environment,
        )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        subject.fail(f"{cls.__module__} cannot be imported and created in a fresh interpreter: {lines[-1]}")
    if heavy := json.loads(done.stdout.splitlines()[-1]):  # the plugin may have printed earlier lines
        subject.fail(f"importing {cls.__module__} imports {', '.join(heavy)}; import it in the method that needs it")


def hints_at_a_misspelled_option(subject: Subject) -> None:
    """An option that does not exist is an error that suggests the closest name."""
    from m3i.config.experiment import Experiment

    # the longest option: no other is as close to its misspelling
    nearest = max((option.name for option in subject.options), key=len, default="")
    path = f"{subject.place}.{nearest or 'nothing'}x"
    try:
        Experiment.compose(f"{subject.entry.group}={subject.entry.name}", f"{path}=1")
    except ConfigError as error:
        if f"option '{path}' does not exist" not in str(error):
            subject.fail(f"{path}=1 must be refused as an option that does not exist; the error is: {error}")
        if nearest and f"did you mean '{subject.place}.{nearest}'?" not in str(error):
            subject.fail(f"{path}=1 must suggest '{nearest}'; the error is: {error}")
    else:
        subject.fail(f"{path}=1 is accepted although there is no such option; only its fields may be options")


CHECKS = (
    has_a_case_of_its_own_options,
    is_documented,
    is_made_with_its_defaults,
    has_the_methods_of_its_interface,
    names_installed_libraries,
    has_options_with_a_json_form,
    imports_nothing_heavy,
    hints_at_a_misspelled_option,
)
