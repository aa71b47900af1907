"""How far apart two colours look, to a normal and to a colour-blind eye, one colour at a time."""

from __future__ import annotations

import math

# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color vision deficiency",
# severity 1.0, for linear RGB.
MACHADO = {
    "normal": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}
# IEC 61966-2-1: linear sRGB to CIE XYZ, white D65
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


def linear(rgb):
    """8-bit sRGB to linear RGB in 0..1."""
    shares = [c / 255 for c in rgb]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]


def seen(rgb, eye):
    """Linear RGB in 0..1 as an eye sees it: ``normal``, ``protan`` or ``deutan``."""
    return [min(max(sum(m * c for m, c in zip(row, linear(rgb), strict=True)), 0.0), 1.0) for row in MACHADO[eye]]


def lab(linear_rgb):
    """Linear RGB to CIE L*a*b* under D65."""
    xyz = [sum(m * c for m, c in zip(row, linear_rgb, strict=True)) / sum(row) for row in _XYZ]
    x, y, z = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def ciede2000(one, two):
    """Sharma, Wu and Dalal 2005, "The CIEDE2000 color-difference formula", equations 2 to 22, all weights 1."""
    (l1, a1, b1), (l2, a2, b2) = one, two
    mean_chroma = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    g = 0.5 * (1 - math.sqrt(mean_chroma**7 / (mean_chroma**7 + 25**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = math.hypot(a1, b1), math.hypot(a2, b2)
    h1, h2 = (math.degrees(math.atan2(b, a)) % 360 if a or b else 0.0 for a, b in ((a1, b1), (a2, b2)))
    grey = c1 * c2 == 0
    turn = 0.0 if grey else (h2 - h1 + 180) % 360 - 180
    if not grey and h2 - h1 == 180:
        turn = 180.0
    lightness, chroma = l2 - l1, c2 - c1
    hue = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2))
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    if grey:
        mean_h = h1 + h2
    elif abs(h1 - h2) <= 180:
        mean_h = (h1 + h2) / 2
    else:
        mean_h = (h1 + h2 + (360 if h1 + h2 < 360 else -360)) / 2

    def cos(degrees):
        return math.cos(math.radians(degrees))

    t = 1 - 0.17 * cos(mean_h - 30) + 0.24 * cos(2 * mean_h) + 0.32 * cos(3 * mean_h + 6) - 0.20 * cos(4 * mean_h - 63)
    turned = 30 * math.exp(-(((mean_h - 275) / 25) ** 2))
    rc = 2 * math.sqrt(mean_c**7 / (mean_c**7 + 25**7))
    sl = 1 + 0.015 * (mean_l - 50) ** 2 / math.sqrt(20 + (mean_l - 50) ** 2)
    sc, sh = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    mixed = -math.sin(math.radians(2 * turned)) * rc * (chroma / sc) * (hue / sh)
    return math.sqrt((lightness / sl) ** 2 + (chroma / sc) ** 2 + (hue / sh) ** 2 + mixed)


def distance(one, two, eye="normal"):
    """CIEDE2000 between two 8-bit sRGB colours as an eye sees them."""
    return ciede2000(lab(seen(one, eye)), lab(seen(two, eye)))


def least(colours):
    """The smallest distance of any two colours to any of the three eyes: ``(distance, eye, one, two)``."""
    return min(
        (distance(one, two, eye), eye, one, two)
        for eye in MACHADO
        for i, one in enumerate(colours)
        for two in colours[i + 1 :]
    )
