"""Transformers by loops over tokens: lists of vectors in, lists of vectors out."""

from __future__ import annotations

import math


def linear(vector, weight, bias=None):
    """One vector through a matrix of rows."""
    out = [sum(w * x for w, x in zip(row, vector, strict=True)) for row in weight]
    return out if bias is None else [value + b for value, b in zip(out, bias, strict=True)]


def layer_norm(vector, weight, bias, eps):
    """Mean 0 and variance 1, then weighed and shifted."""
    mean = sum(vector) / len(vector)
    spread = math.sqrt(sum((x - mean) ** 2 for x in vector) / len(vector) + eps)
    return [(x - mean) / spread * w + b for x, w, b in zip(vector, weight, bias, strict=True)]


def gelu(x):
    """By the error function."""
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def attention(tokens, qkv, out, heads):
    """Self-attention; ``qkv`` and ``out`` are (weight, bias)."""
    width = len(tokens[0])
    side = width // heads
    projected = [linear(token, *qkv) for token in tokens]
    answers = []
    for own in projected:
        joined = []
        for head in range(heads):
            at = slice(head * side, (head + 1) * side)
            query = own[:width][at]
            likes = [
                sum(q * k for q, k in zip(query, other[width : 2 * width][at], strict=True)) / math.sqrt(side)
                for other in projected
            ]
            powers = [math.exp(like - max(likes)) for like in likes]
            values = [other[2 * width :][at] for other in projected]
            joined += [
                sum(p * value[i] for p, value in zip(powers, values, strict=True)) / sum(powers) for i in range(side)
            ]
        answers.append(linear(joined, *out))
    return answers


def block(tokens, weights, heads):
    """One block: attention and an MLP, each behind a norm and added; ``weights`` are those of its parts by name."""
    normed = [layer_norm(token, *weights["norm1"], 1e-5) for token in tokens]
    seen = attention(normed, weights["qkv"], weights["proj"], heads)
    tokens = [[a + b for a, b in zip(token, more, strict=True)] for token, more in zip(tokens, seen, strict=True)]
    out = []
    for token in tokens:
        hidden = linear(layer_norm(token, *weights["norm2"], 1e-5), *weights["fc1"])
        more = linear([gelu(x) for x in hidden], *weights["fc2"])
        out.append([a + b for a, b in zip(token, more, strict=True)])
    return out


def cosine(a, b):
    """Of two vectors."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
