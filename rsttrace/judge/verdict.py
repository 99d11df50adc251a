"""Weighs what was seen into a verdict: which author explains it best."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import replace
from typing import NamedTuple

from rsttrace import tcp
from rsttrace.judge import facts, proofs, reasons, why
from rsttrace.judge.advice import advice
from rsttrace.judge.authors import (
    FORGED_FROM,
    PEER_FROM,
    PRIOR_OF,
    TABLE,
    WORDS,
    Model,
    by_author,
    factors,
    peer_share,
)
from rsttrace.judge.findings import findings
from rsttrace.judge.fingerprints import Fingerprints, Match
from rsttrace.judge.observe import Observation, distances, observe
from rsttrace.model import Author, Evidence, Fate, Kind, Origin, Reset, Share, Verdict

CERTAIN = 0.999
"""No more than this can what was seen carry, however much it is."""

CERTAIN_PEER = 0.97
"""No more than this can it carry for the peer: a device that copies all of the peer's packet, and
lets nothing through afterwards, is excluded by nothing that was seen. In tests/accuracy 4 of 100
that are called the peer's are such copies."""

PROOF_SCORE = 20.0
"""The score of a proof, and the largest one."""

SPEAKS_FROM = 0.2
"""An observation that moves the log-odds by less is no evidence to be shown."""

LOG_WEIGHT = 2.6
"""ln(40/3): how much more often a log that has no such RST belongs to a forgery (authors.py)."""


def logit(share: float) -> float:
    """The log-odds of a probability, kept finite."""
    share = min(1 - 1e-9, max(1e-9, share))
    return math.log(share / (1 - share))


def decide(score: float) -> tuple[Origin, float | None]:
    """What the log-odds of "not the peer" say, and how probable it is."""
    forged = 1 / (1 + math.exp(-score))
    if forged >= FORGED_FROM:
        return Origin.FORGED, min(forged, CERTAIN)
    if 1 - forged >= PEER_FROM:
        return Origin.PEER, min(1 - forged, CERTAIN_PEER)
    return Origin.INCONCLUSIVE, None


def judge(
    reset: Reset,
    fingerprints: Fingerprints | None = None,
    table: Model = TABLE,
    *,
    explain: bool = True,
) -> Verdict:
    """Say who made a reset, by everything known about it. Pure.

    `fingerprints` name the device where the evidence says, or leans to, forged; they weigh nothing.
    `table` holds the numbers (tests replace it). Without `explain`, `Verdict.considered` stays
    empty: what says nothing is not put together.
    """
    reset.memo.clear()
    for other in reset.siblings:
        other.memo.clear()
    proof = proofs.proof(reset)
    if reset.kind.direction == "sent":
        return _sent(reset, proof)
    seen = observe(reset)
    names = tuple([found.name for found in seen if found.name is not None])
    weighed = _weigh(table, names)
    shares, score = weighed.shares, weighed.score
    considered = tuple(
        [
            _evidence(found, weighed)
            for found in seen
            if explain or found.name is not None or found.group == "asked"
        ]
    )
    confidence: float | None
    if proof is not None:
        origin, confidence = proof.origin, 1.0
        score = PROOF_SCORE if origin is Origin.FORGED else -PROOF_SCORE
        authors = _proved(proof, shares)
        considered = (_proof_evidence(proof, score), *considered)
    else:
        origin, confidence = weighed.decided
        authors = weighed.authors
    words = proofs.other_end_words(reset)
    if words is not None and not any(found.rule == "other-end" for found in considered):
        considered += (Evidence("other-end", 0.0, *words),)
    speaking = tuple(
        [
            found
            for found in considered
            if found.proof or found.group == "asked" or abs(found.weight) >= SPEAKS_FROM
        ]
    )
    named = proof is not None and proof.author is not None
    beside = findings(reset, origin, authors, proved=named)
    return _verdict(
        reset,
        fingerprints,
        origin,
        confidence,
        score,
        authors,
        considered if explain else (),
        speaking,
        beside,
        explain,
    )


def _verdict(
    reset: Reset,
    fingerprints: Fingerprints | None,
    origin: Origin,
    confidence: float | None,
    score: float,
    authors: tuple[Share, ...],
    considered: tuple[Evidence, ...],
    speaking: tuple[Evidence, ...],
    found_beside: tuple[Evidence, ...],
    explain: bool,
) -> Verdict:
    suspect = origin is Origin.FORGED or (origin is Origin.INCONCLUSIVE and score > 0)
    device = None
    if fingerprints is not None:
        unnamed = _not_named(reset, suspect, authors)
        if explain or unnamed is None:
            matches = fingerprints.match(reset)
            if explain:
                considered += (_fingerprint_line(matches, unnamed),)
            device = matches[0].fingerprint if matches and unnamed is None else None
    written = reasons.written(reset)
    named = device.device if device is not None else None
    rst_hops, peer_hops = distances(reset)
    names = tuple([found.rule for found in found_beside])
    return Verdict(
        origin=origin,
        confidence=None if confidence is None else round(confidence, 3),
        score=score,
        evidence=(*_in_order(speaking), *found_beside),
        findings=names,
        considered=considered,
        hops_rst=rst_hops,
        hops_peer=peer_hops,
        device_name=(written.device if written is not None else None) or named,
        device_fingerprint=device.key if device is not None else None,
        summary=summary(reset, origin, authors),
        authors=authors,
        advice=advice(reset, origin, authors, names, reset.cause.name),
        cause=why.better_cause(reset),
        device_reason=written.reason if written is not None else None,
    )


def counted(reset: Reset) -> Verdict:
    """Of resets that were only counted: none was looked at, and so nobody is accused. Pure."""
    if reset.kind.direction == "sent":
        return _sent(reset, proofs.proof(reset))
    return Verdict(Origin.INCONCLUSIVE, None, 0.0, summary="only counted, not looked at one by one")


def unread(reset: Reset) -> Verdict:
    """Of a reset whose headers could not be read (`Reset.unread`): nobody is accused. Pure."""
    return Verdict(
        Origin.INCONCLUSIVE,
        None,
        0.0,
        summary=f"{reset.cause.text}; its headers could not be read where it came in",
    )


def _sent(reset: Reset, proof: proofs.Proof | None) -> Verdict:
    """What this host sent itself: there is nothing to weigh."""
    assert proof is not None
    considered: tuple[Evidence, ...] = (_proof_evidence(proof, 0.0),)
    words = proofs.other_end_words(reset)
    if words is not None:
        considered += (Evidence("other-end", 0.0, *words),)
    beside = findings(reset, Origin.LOCAL, (), proved=True)
    names = tuple(found.rule for found in beside)
    better = why.better_cause(reset)
    cause = better or reset.cause
    return Verdict(
        origin=Origin.LOCAL,
        confidence=1.0,
        score=0.0,
        evidence=(considered[0], *beside),
        findings=names,
        considered=considered,
        summary=cause.text,
        advice=advice(reset, Origin.LOCAL, (), names, cause.name),
        cause=better,
    )


class _Weighed(NamedTuple):
    """What observations say together, whatever the reset: it is worked out once for each set.

    `weights` is each one's effect: the verdict with it against the verdict without it. `decided` is
    what the score says.
    """

    shares: tuple[float, ...]
    score: float
    weights: dict[str, float]
    authors: tuple[Share, ...]
    decided: tuple[Origin, float | None]


WEIGHED = 4096
"""So many sets of observations are remembered for each table."""


def _weigh(table: Model, names: tuple[str, ...]) -> _Weighed:
    known: OrderedDict[tuple[str, ...], _Weighed] = table.memo
    found = known.get(names)
    if found is None:
        shares = table.weigh(names)
        score = round(logit(1 - peer_share(shares)), 2)
        weights = {name: round(score - table.without(shares, name), 2) for name in names}
        authors = tuple(
            Share(author, round(share, 4), WORDS[author], round(PRIOR_OF[author], 4))
            for author, share in by_author(shares).items()
        )
        found = known[names] = _Weighed(shares, score, weights, authors, decide(score))
        if len(known) > WEIGHED:
            known.popitem(last=False)
    return found


def _evidence(found: Observation, weighed: _Weighed) -> Evidence:
    """An observation with its effect."""
    if found.name is None:
        return Evidence(found.group, 0.0, found.text, found.values, group=found.group)
    return Evidence(
        found.name,
        weighed.weights[found.name],
        found.text,
        found.values,
        False,
        found.group,
        factors(found.name),
    )


def _proof_evidence(proof: proofs.Proof, score: float) -> Evidence:
    return Evidence(proof.rule, score, proof.text, proof.values, proof=True)


def _proved(proof: proofs.Proof, shares: tuple[float, ...]) -> tuple[Share, ...]:
    """The author where there is a proof: named by it, else those that agree with it."""
    if proof.author is not None:
        return (Share(proof.author, 1.0, WORDS[proof.author]),)
    wanted = proof.origin is Origin.PEER
    left = {who: share for who, share in by_author(shares).items() if who.is_peer == wanted}
    whole = sum(left.values()) or 1.0
    return tuple(Share(who, round(share / whole, 4), WORDS[who]) for who, share in left.items())


def other_end(reset: Reset) -> Evidence | None:
    """What another vantage point says of this reset; None where there is none."""
    proof = proofs.other_end(reset)
    if proof is not None and reset.kind.direction != "sent":
        score = PROOF_SCORE if proof.origin is Origin.FORGED else -PROOF_SCORE
        return _proof_evidence(proof, score)
    words = proofs.other_end_words(reset)
    if words is not None:
        return Evidence("other-end", 0.0, *words)
    other = reset.other_end
    if other is None or other.fate is not Fate.NEVER_SENT or reset.kind.direction == "sent":
        return None
    text = f"never left {other.point} ({other.file.rpartition('/')[2]}): {other.why}"
    return Evidence("other-end-log", LOG_WEIGHT, text, factors=factors("other-end-log"))


def reconsider(verdict: Verdict, found: Evidence, *, firewall: bool = False) -> Verdict:
    """A verdict that was given elsewhere, with one more piece of evidence. Pure.

    `firewall`: what it proves is that the peer's own firewall made it.

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
    authors = tuple(
        share
        for share in verdict.authors
        if not found.proof or share.author.is_peer == (origin is Origin.PEER)
    )
    if found.proof and firewall:
        authors = (Share(Author.PEER_FIREWALL, 1.0, WORDS[Author.PEER_FIREWALL]),)
        verdict = replace(verdict, summary=why.OWN_FIREWALL)
    return replace(
        verdict,
        origin=origin,
        confidence=None if confidence is None else round(confidence, 3),
        score=score,
        evidence=evidence,
        considered=considered,
        authors=authors,
    )


def _not_named(reset: Reset, suspect: bool, authors: tuple[Share, ...]) -> str | None:
    """Why no device is named, whatever the reset is like; None where it may be."""
    if not suspect:
        return "nothing accuses"
    likeliest = authors[0].author if authors else None
    if likeliest is Author.SECOND_HOST and facts.is_bare(reset.rst):
        return "a second host with this address answers in the same way"
    if likeliest is not None and likeliest.is_peer:
        return "the peer is likelier"
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


def _in_order(evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """Proof first, then what moves the verdict most."""
    if len(evidence) < 2:
        return evidence
    return tuple(sorted(evidence, key=lambda found: (not found.proof, -abs(found.weight))))


TIME_WAIT_ENDED = "time-wait-ended"
"""What no deed of the peer tells: that there was hardly a connection left to be ended."""


MAY_REJECT = 0.2
"""The peer's firewall is named beside its host if it is so likely."""


def _by_firewall(did: why.Deed, text: str, authors: tuple[Share, ...]) -> str:
    """The deed of a host without the connection, which may be its firewall's as well."""
    if did is not why.Deed.NO_CONNECTION:
        return text
    share = {one.author: one.probability for one in authors}
    firewall = share.get(Author.PEER_FIREWALL, 0.0)
    if firewall < MAY_REJECT:
        return text
    if firewall < share.get(Author.PEER_HOST, 0.0):
        return f"{text}, or its own firewall rejected it"
    return f"the peer's own firewall rejected it, or {text}"


def summary(reset: Reset, origin: Origin, authors: tuple[Share, ...] = ()) -> str:
    """One sentence: what happened, as far as it is known."""
    if reset.kind.direction == "sent":
        return reset.cause.text
    plain = reset.kind is Kind.RECEIVED_ACCEPTED and reset.cause.name != TIME_WAIT_ENDED
    what = tcp.said(reset.rst.options) if plain else f"; {reset.cause.text}"
    did, text = why.deed(reset)
    if origin is Origin.PEER:
        return _by_firewall(did, text, authors) + what
    if origin is Origin.INCONCLUSIVE and did in (why.Deed.CLOSED, why.Deed.REUSED):
        return f"{reset.cause.text}; {text}"
    if reset.kind is Kind.RECEIVED_ACCEPTED and reset.cause.name == "connection-refused":
        return "connection refused"
    return reset.cause.text
