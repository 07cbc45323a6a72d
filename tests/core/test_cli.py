"""Subcommands that print: what they show is what the docstrings say, and no run takes another one's folder."""

from dataclasses import dataclass
from types import ModuleType

import pytest

import m3i
from m3i.cli.main import run_command
from m3i.config.registry import build
from m3i.engine.folders import new_run_dir


@dataclass(kw_only=True)
class Bracketed(m3i.Component):
    """Reads logit[wrong] − logit[right] and closes [/x] nothing."""

    option: str = "[bold]"
    """Shown as [it] stands.

    Each line of it, indented.
    """

    def attribute(self, request):
        raise AssertionError("nothing is run here")


@pytest.fixture
def bracketed(monkeypatch):
    module = ModuleType("bracketed")

    @m3i.hookimpl
    def register_attributors(register):
        register("bracketed", Bracketed)

    module.register_attributors = register_attributors
    registry = build([(module, "acme", "1")])
    monkeypatch.setattr("m3i.config.registry.installed", lambda: registry)
    monkeypatch.setenv("COLUMNS", "200")


def test_brackets_in_a_docstring_are_text(bracketed, capsys):
    assert run_command(["plugins", "attributor"]) == 0
    assert "Reads logit[wrong] − logit[right] and closes [/x] nothing." in capsys.readouterr().out


@pytest.mark.parametrize("words", [["attributor", "bracketed"], ["attributor=bracketed"]])
def test_options_of_a_component_by_either_form(bracketed, capsys, words):
    assert run_command(["options", *words]) == 0
    shown = capsys.readouterr().out
    assert "attributor.bracketed.option = [bold]\n    Shown as [it] stands.\n\n    Each line of it, indented." in shown


@pytest.mark.parametrize("words", [[], ["attributor"], ["a", "b", "c"], ["nothing=bracketed"]])
def test_a_wrong_form_is_one_line_with_the_usage(bracketed, capsys, words):
    assert run_command(["options", *words]) == 2
    assert capsys.readouterr().err.startswith("m3i: usage: m3i options GROUP NAME, with GROUP one of target, ")


def test_runs_of_one_second_have_folders_of_their_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folders = [new_run_dir() for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() and folder.parts[0] == "outputs" for folder in folders)
