"""M3I: which layers carry a model's reasoning failures, does training only those help, and how sure can one be.

Everything that a plugin or a script needs is here: `import m3i`, then `m3i.Component`, `m3i.TrainRequest`,
`m3i.run(m3i.Experiment.compose("arm=random-3"))`. Names are imported on first use, so importing m3i loads neither
Hydra nor torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_BY_MODULE = {
    "m3i.component": ("Component", "option", "require"),
    "m3i.hookspecs": ("Register", "hookimpl"),
    "m3i.errors": (
        "ConfigError",
        "DeadTensorError",
        "InputError",
        "JobError",
        "M3IError",
        "PluginError",
        "StageError",
        "StoreError",
        "SweepError",
        "TrackingError",
        "did_you_mean",
    ),
    "m3i.interfaces": (
        "AttributionRequest",
        "AttributionRows",
        "Attributor",
        "AuditRequest",
        "Ballot",
        "BlindPair",
        "ExportRequest",
        "Exporter",
        "Judge",
        "JudgeRequest",
        "Judgment",
        "LayerSelector",
        "Observer",
        "ProblemSource",
        "SelectionRequest",
        "Target",
        "Tick",
        "Tracker",
        "TrainRequest",
        "Trainer",
        "no_tick",
    ),
    "m3i.artifacts": (
        "Adapter",
        "Answer",
        "Answers",
        "Artifact",
        "Audit",
        "BaseModel",
        "CallFacts",
        "Canary",
        "Contrast",
        "Contrasts",
        "Export",
        "ExportCertificate",
        "FileEffect",
        "Finding",
        "LayerScores",
        "LayerSelection",
        "Outcome",
        "PairOrigin",
        "PreferencePair",
        "PreferencePairs",
        "Problem",
        "ProblemSet",
        "ReferenceLogprobs",
        "ScoreRow",
        "StepError",
        "TargetInfo",
        "Telemetry",
        "TensorLiveness",
        "Trace",
        "Traces",
        "TrainedTensor",
        "TrainingCertificate",
        "Verdict",
        "Verdicts",
        "Verification",
    ),
    "m3i.audits.quotes": ("QuoteError", "line_around", "make_finding"),
    "m3i.models.huggingface.facts": ("describe_folder",),
    "m3i.models.huggingface.load": ("load_folder",),
    "m3i.models.session": ("TargetSession",),
    "m3i.models.target": ("LoadedTarget",),
    "m3i.statistics.draws": ("permuted", "rank_of", "subset_at"),
    "m3i.store.files": ("read_json_lines",),
    "m3i.config.experiment": ("Experiment",),
    "m3i.engine.run": ("Run", "run"),
}
EXPORTS = {name: module for module, names in _BY_MODULE.items() for name in names}
"""Name → the module that defines it. The type stub and docs/reference.md are generated from it."""

__all__ = ["EXPORTS", "__version__", *EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in EXPORTS:
        raise AttributeError(f"module 'm3i' has no attribute {name!r}; the public names are in m3i.EXPORTS")
    value = getattr(import_module(EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
