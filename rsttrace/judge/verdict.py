"""Adds the evidence up."""

from __future__ import annotations

import math
from dataclasses import replace

from rsttrace.judge.findings import findings
from rsttrace.judge.fingerprints import Fingerprints, Match
from rsttrace.judge.rules import (
    PATH_RULES,
    RULES,
    answers_ours,
    is_no_socket_shape,
    reference_ttl,
)
from rsttrace.model import Evidence, Kind, Origin, Reset, Verdict, hops

FORGED_AT = math.log(0.95 / 0.05)
"""Sum of weights from which a reset is called forged: 95 %. An accusation needs more."""

PEER_AT = -math.log(0.90 / 0.10)
"""Sum of weights from which a reset is called the peer's: 90 %."""


def probability(score: float) -> float:
    """Log-odds to a probability, kept inside what the evidence can carry (0.1 % .. 99.9 %)."""
    return min(0.999, max(0.001, 1 / (1 + math.exp(-score))))


def judge(reset: Reset, fingerprints: Fingerprints | None = None) -> Verdict:
    """Weigh everything known about a reset. Pure.

    `fingerprints` name the device where the evidence says, or leans to, forged; they weigh nothing.
    """
    considered = _one_cause(tuple(found for rule in RULES if (found := rule(reset)) is not None))
    speaking = tuple(found for found in considered if found.weight or found.proof)
    proofs = [found for found in speaking if found.proof]
    found_beside = findings(reset)
    score = round(sum(found.weight for found in speaking if not found.proof), 2)
    reference = reference_ttl(reset)
    received = reset.kind.direction != "sent"
    confidence: float | None
    if proofs:
        score = proofs[0].weight
        confidence = 1.0
        if not received:
            origin = Origin.LOCAL
        else:
            origin = Origin.FORGED if score > 0 else Origin.PEER
    else:
        origin, confidence = decide(score)
    suspect = received and origin in (Origin.FORGED, Origin.INCONCLUSIVE) and score > 0
    device = None
    if fingerprints is not None and received:
        matches = fingerprints.match(reset)
        unnamed = _not_named(reset, suspect, found_beside)
        considered += (_fingerprint_line(matches, unnamed),)
        device = matches[0].fingerprint if matches and unnamed is None else None
    return Verdict(
        origin=origin,
        confidence=None if confidence is None else round(confidence, 3),
        score=score,
        evidence=(*_in_order(speaking), *found_beside),
        findings=tuple(found.rule for found in found_beside),
        considered=considered,
        hops_rst=hops(reset.rst.ttl) if received else None,
        hops_peer=hops(reference) if received and reference is not None else None,
        device_name=device.device if device is not None else None,
        device_fingerprint=device.key if device is not None else None,
        summary=summary(reset, origin),
    )


def reconsider(verdict: Verdict, found: Evidence) -> Verdict:
    """A verdict that was given elsewhere, with one more piece of evidence. Pure.

    What else is known of that reset may not be: its other evidence stays as it is, and so does the
    verdict of a host on what it sent itself.
    """
    considered = (*verdict.considered, found) if verdict.considered else ()
    evidence = verdict.evidence
    if found.weight or found.proof:
        evidence = (*_in_order((found, *evidence)),)
    decided = verdict.origin is Origin.LOCAL or any(item.proof for item in verdict.evidence)
    if decided or not (found.weight or found.proof):
        return replace(verdict, evidence=evidence, considered=considered)
    confidence: float | None = 1.0
    if found.proof:
        origin = Origin.FORGED if found.weight > 0 else Origin.PEER
        score = found.weight
    else:
        score = round(verdict.score + found.weight, 2)
        origin, confidence = decide(score)
    return replace(
        verdict,
        origin=origin,
        confidence=None if confidence is None else round(confidence, 3),
        score=score,
        evidence=evidence,
        considered=considered,
    )


def decide(score: float) -> tuple[Origin, float | None]:
    """What a sum of weights says, and how probable it is."""
    if score >= FORGED_AT:
        return Origin.FORGED, probability(score)
    if score <= PEER_AT:
        return Origin.PEER, 1 - probability(score)
    return Origin.INCONCLUSIVE, None


def _not_named(reset: Reset, suspect: bool, found: tuple[Evidence, ...]) -> str | None:
    """Why no device is named, whatever the reset is like; None where it may be."""
    if not suspect:
        return "nothing accuses"
    second_host = any(finding.rule == "duplicate-address" for finding in found)
    if second_host and is_no_socket_shape(reset.rst):
        return "a second host with this address answers in the same way"
    return None


def _fingerprint_line(matches: list[Match], unnamed: str | None) -> Evidence:
    """What the fingerprints say, for --explain: without weight, they never make the verdict."""
    if not matches:
        return Evidence("fingerprint", 0.0, "like no device that we know")
    best = matches[0]
    text = f"like {best.fingerprint.key}: {', '.join(best.why)}"
    if unnamed is not None:
        text = f"not named, since {unnamed}; {text}"
    elif len(matches) > 1:
        text += f" (less like {', '.join(match.fingerprint.key for match in matches[1:])})"
    values = {match.fingerprint.key: match.specificity for match in matches}
    return Evidence("fingerprint", 0.0, text, values)


def _one_cause(considered: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """Let only the strongest accuse of those that one honest change of path would explain."""
    path = [found for found in considered if found.rule in PATH_RULES and found.weight > 0]
    if len(path) < 2:
        return considered
    strongest = max(path, key=lambda found: found.weight)
    return tuple(
        replace(found, weight=0.0, text=f"{found.text} (not added: a change of path explains both)")
        if found in path and found is not strongest
        else found
        for found in considered
    )


def _in_order(evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """Proof first, then the heaviest."""
    return tuple(sorted(evidence, key=lambda found: (not found.proof, -abs(found.weight))))


def summary(reset: Reset, origin: Origin) -> str:
    """One sentence: what happened, as far as it is known."""
    if reset.kind.direction == "sent":
        return reset.cause.text
    what = "" if reset.kind is Kind.RECEIVED_ACCEPTED else f"; {reset.cause.text}"
    if origin is Origin.PEER:
        return _peer_did(reset) + what
    if reset.kind is Kind.RECEIVED_ACCEPTED and reset.cause.name == "connection-refused":
        return "connection refused"
    return reset.cause.text


def _peer_did(reset: Reset) -> str:
    """What an honest peer must have done to send a such a RST (net/ipv4/tcp_ipv4.c, tcp.c)."""
    made = reset.made_here
    if made is not None and made.kind is Kind.SENT_ACTIVE:
        return "the peer closed or aborted its live socket"
    if is_no_socket_shape(reset.rst):
        trigger = reset.trigger.flags if reset.trigger is not None else ""
        if trigger == "S":
            return "the peer refused: no socket listens there"
        if answers_ours(reset.rst, reset.baseline.ours) is False:
            return "the peer has no such connection (it answers none of our last packets)"
        return "the peer has no such connection"
    if "A" in reset.rst.flags:
        return (
            "the peer aborted a live connection (closed with unread data, SO_LINGER 0, or killed)"
        )
    return "the peer reset it"
