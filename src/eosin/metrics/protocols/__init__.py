"""Named ways to score: how a prediction is made ready and counted, and the object that ``scores.json`` gets."""

from __future__ import annotations

from eosin.core.errors import WrongUse, nearest
from eosin.metrics.protocols.base import Measure, Protocol, Strict
from eosin.metrics.protocols.entries import (
    Entry,
    MilScores,
    Score,
    ScoreEntry,
    Subject,
    TagScores,
    TagsEntry,
    tag_scores,
    tags_entry,
)
from eosin.metrics.protocols.mil import MilPatch
from eosin.metrics.protocols.tissue import Binary, TissueDrop, TissueFp, TissueFpTags

__all__ = [
    "PROTOCOLS",
    "Binary",
    "Entry",
    "Measure",
    "MilPatch",
    "MilScores",
    "Protocol",
    "Score",
    "ScoreEntry",
    "Strict",
    "Subject",
    "TagScores",
    "TagsEntry",
    "TissueDrop",
    "TissueFp",
    "TissueFpTags",
    "find_protocol",
    "tag_scores",
    "tags_entry",
]

PROTOCOLS: dict[str, type[Protocol]] = {
    protocol.name: protocol for protocol in (Strict, TissueDrop, TissueFp, TissueFpTags, Binary, MilPatch)
}


def find_protocol(name: str) -> type[Protocol]:
    """Look a protocol up by its name.

    Raises:
        WrongUse: if there is none of that name.
    """
    if name not in PROTOCOLS:
        raise WrongUse(f"{name}: unknown protocol{nearest(name, list(PROTOCOLS))}")
    return PROTOCOLS[name]
