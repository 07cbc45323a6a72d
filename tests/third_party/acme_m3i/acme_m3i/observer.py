"""An observer in thirty lines."""

from dataclasses import dataclass

import m3i
from m3i import Audit, AuditRequest, make_finding


@dataclass(kw_only=True)
class LeastConfident(m3i.Component):
    """Points at the line with the model's least likely token, where that is unlikely enough."""

    threshold: float = -1.5
    """Log-probability in nats below which a token counts as a failure."""

    def __post_init__(self) -> None:
        """Checks the values."""
        m3i.require(self.threshold < 0, "observer.acme.threshold", self.threshold, "a negative number")

    async def audit(self, request: AuditRequest) -> Audit:
        """One finding at most a trace."""
        findings = []
        for _problem, trace in request.items:
            worst = min(range(len(trace.logprobs)), key=lambda i: trace.logprobs[i])
            start, end = trace.offsets[worst]
            if trace.logprobs[worst] < self.threshold and end > start:
                quote = trace.text[start:end]
                finding = make_finding(trace, quote, start=start, kind="unlikely", reason="least likely token")
                findings.append(finding)
        audited = tuple(trace.id for _problem, trace in request.items)
        return Audit(observer="acme", findings=tuple(findings), audited=audited)
