"""Rules on training and on the export to llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m3i.wording.caveats.caveat import Caveat, Result, caveat, tally
from m3i.wording.formats import count, percent

FEW_PAIRS = 200
ERROR_BOUND = 0.10
"""Largest relative error that the export certificate allows."""


def training(result: Result) -> Iterator[Caveat]:
    """Few pairs, long pairs left out, preferences that were not learned."""
    section = result["training"]
    if result["layers"]["zero_update"]:
        return
    if section["n_pairs"] < FEW_PAIRS:
        yield caveat(
            "few_pairs",
            "Few training pairs",
            f"{count(section['n_pairs'], 'preference pair')} from {count(section['n_problems'], 'problem')}, "
            f"{count(len(section['log']), 'optimizer step')}: few by the standards of preference training.",
        )
    out = {k.partition(": ")[2]: v for k, v in section["counts"].items() if k.startswith("left out") and v}
    cut = {reason: n for reason, n in out.items() if "trunc" in reason or "longer" in reason}
    if cut:
        yield caveat(
            "long_pairs",
            "Long traces are missing from the training pairs",
            f"They were left out, not cut: {tally(cut)}. The pairs therefore lean towards shorter completions than the "
            f"model writes.",
        )
    accuracies = [row["reward_accuracy"] for row in section["log"] if row.get("reward_accuracy") is not None]
    late = accuracies[-max(1, len(accuracies) // 5) :]
    if late and sum(late) / len(late) < 0.6:
        yield caveat(
            "not_learned",
            "The preferences were barely learned",
            f"Over the last {count(len(late), 'step')}, the adapter prefers the chosen side in "
            f"{percent(sum(late) / len(late))} of the pairs; it started at 50 %.",
            major=True,
        )


def export(result: Result) -> Iterator[Caveat]:
    """Dead tensors, a failed or loose certificate, parity floor, routing flips, updates lost in quantisation."""
    certificate = result["certificates"]["export"]
    if certificate["vacuous"]:
        return
    dead = [t["name"] for t in certificate["tensors"] if not t["live"]]
    if dead or certificate["live_share"] < 1:
        yield caveat(
            "dead_tensors",
            f"Only {percent(certificate['live_share'])} of the adapter was evaluated",
            f"{len(dead)} of {len(certificate['tensors'])} trained tensors make no difference in llama.cpp"
            + (f": {', '.join(dead[:6])}{' and more' if len(dead) > 6 else ''}." if dead else "."),
            major=True,
        )
    together = certificate["together"]
    error = together["relative_error"]
    if not certificate["passed"] or (error is not None and error > ERROR_BOUND):
        size = (
            ""
            if error is None
            else f" Its joint effect differs from PEFT's by {percent(error)}; up to {percent(ERROR_BOUND)} is allowed."
        )
        yield caveat(
            "certificate",
            "The export certificate did not pass",
            f"The evaluated model is not the trained one.{size} {certificate['note']}".strip(),
            major=True,
        )
    in_file = certificate["in_file"]
    if in_file and in_file["relative_error"] is not None and in_file["relative_error"] > ERROR_BOUND:
        yield caveat(
            "narrow_kernels",
            "The quantised file changes the model differently than training did",
            f"In exact arithmetic the update arrives intact. The file used for the answers computes with rounded "
            f"activations: there the update moves log-probabilities by {in_file['llama_norm']:.2g} nats, "
            f"{percent(in_file['relative_error'])} away from PEFT's {in_file['peft_norm']:.2g}. A base file of higher "
            f"precision (exporter.base_type=f16 or f32) follows the trained update more closely.",
            major=True,
        )
    peft, floor = together["peft_norm"], certificate["base_parity_rms"]
    if peft is not None and floor is not None and floor > 0.5 * peft:
        yield caveat(
            "parity_floor",
            "The update is not much larger than the difference between runtimes",
            f"llama.cpp and transformers differ by {floor:.2g} nats on the base model; training changed the "
            f"log-probabilities by {peft:.2g} nats.",
        )
    if certificate["routing_flips"]:
        yield caveat(
            "routing_flips",
            f"{count(certificate['routing_flips'], 'probe token')} took different experts in llama.cpp and in PEFT",
            f"Near-ties in the router. These tokens are excluded from the errors of the export certificate "
            f"({certificate['n_probe_tokens']} probe tokens in all).",
        )
    erased = [t for t in certificate["tensors"] if _erased(t)]
    if erased:
        types = ", ".join(sorted({t["ggml_type"] for t in erased}))
        yield caveat(
            "erased_updates",
            f"Quantisation erased most of the update of {count(len(erased), 'trained tensor')}",
            f"More than half of the update is lost in the file ({types}) because it is smaller than the quantisation "
            f"step.",
            major=True,
        )


def _erased(tensor: Mapping[str, Any]) -> bool:
    return any(tensor[name] is not None and tensor[name] > 0.5 for name in ("erased_share", "storage_error"))
