"""Chances of items by their tags, one combination at a time; an unknown tag is None or NaN."""

from __future__ import annotations

import math
from collections import Counter


def balanced(tags):
    """The chance of each item, for rows of 1, 0 and unknown.

    A combination that leaves tags open may be any of those that agree with it and know more. Those of them that nobody
    knows more than share its items among them in proportion to their own, and it is drawn as they are on average.
    """
    rows = [tuple(None if tag is None or math.isnan(tag) else int(tag) for tag in row) for row in tags]
    items = Counter(rows)

    def may_be(vague, exact):
        return vague != exact and all(a is None or a == b for a, b in zip(vague, exact, strict=True))

    last = [kind for kind in items if not any(may_be(kind, other) for other in items)]
    size = {kind: float(items[kind]) for kind in last}
    shares = {}
    for kind in items:
        if kind not in last:
            known_more = [other for other in last if may_be(kind, other)]
            total = sum(items[other] for other in known_more)
            shares[kind] = {other: items[other] / total for other in known_more}
            for other, share in shares[kind].items():
                size[other] += share * items[kind]
    drawn = {kind: 1 / math.sqrt(size[kind]) for kind in last}
    for kind, of in shares.items():
        drawn[kind] = sum(share / math.sqrt(size[other]) for other, share in of.items())
    total = sum(drawn[row] for row in rows)
    return [drawn[row] / total for row in rows]
