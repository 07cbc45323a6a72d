"""What one stage hands to the next: frozen, typed, written as JSON, JSONL and safetensors.

Every artifact has an `id` (the store's key of the computation that made it) and the ids of its
parents. Token positions count from the first token of the *completion* unless a name says
otherwise; character spans are half-open and count in the completion's text.
"""

from m3i.artifacts.base import ARRAYS, RECORDS, Artifact
from m3i.artifacts.findings import Audit, CallFacts, Contrast, Contrasts, Finding
from m3i.artifacts.layers import LayerScores, LayerSelection, ScoreRow
from m3i.artifacts.models import (
    Adapter,
    BaseModel,
    Export,
    ExportCertificate,
    FileEffect,
    TargetInfo,
    TensorLiveness,
    TrainedTensor,
    TrainingCertificate,
)
from m3i.artifacts.pairs import PairOrigin, PreferencePair, PreferencePairs, ReferenceLogprobs
from m3i.artifacts.problems import Problem, ProblemSet, StepError, Verification
from m3i.artifacts.traces import Telemetry, Trace, Traces
from m3i.artifacts.verdicts import EQUAL, SCORES, Answer, Answers, Canary, Outcome, Verdict, Verdicts, merge

__all__ = [
    "ARRAYS",
    "EQUAL",
    "RECORDS",
    "SCORES",
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
    "merge",
]
