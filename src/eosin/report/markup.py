"""HTML by construction: every child is escaped unless a builder made it, so no name of the user's can break a page."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

import cv2
import numpy as np

from eosin.slides.draw import Pixels

_VOID = frozenset({"img", "br"})
_MINUTE, _HOUR = 60, 3600
_PICTURE = 48_000  # bytes of a picture, so that the hundred or so of a page stay below 10 MB
_QUALITIES = (84, 74, 64, 54, 44)


class Safe(str):
    """Text that is HTML already."""

    __slots__ = ()


def el(name: str, *children: object, **attributes: object) -> Safe:
    """One element.

    Args:
        name: of the element.
        children: escaped unless ``Safe``; ``None`` is left out, lists and tuples are taken item by item.
        attributes: ``class_`` is ``class`` and other underscores are hyphens; ``None`` leaves one out.
    """
    pairs = ((k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items() if v is not None)
    head = name + "".join(f' {k}="{escape(str(v))}"' for k, v in pairs)
    return Safe(f"<{head}>" if name in _VOID else f"<{head}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Safe:
    """Escape what is not ``Safe`` and put everything in a row."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, list | tuple):
            parts.append(join(child))
        elif child is not None:
            parts.append(child if isinstance(child, Safe) else escape(str(child)))
    return Safe("".join(parts))


def table(
    caption: str, head: Sequence[object], rows: Sequence[Sequence[object]], *, class_: str = "", text: int = 1
) -> Safe:
    """A table in a box that scrolls sideways on a small screen.

    Args:
        caption: says what it shows, also to a screen reader.
        head: column titles.
        rows: cells; the first of each row is its title.
        class_: extra CSS classes.
        text: so many leading columns hold text (left-aligned), the others numbers.
    """
    side = ["text" if i < text else "num" for i in range(len(head))]
    titles = [el("th", cell, scope="col", class_=s) for cell, s in zip(head, side, strict=True)]
    body = []
    for row in rows:
        first, *others = row
        cells = [el("td", cell, class_=s) for cell, s in zip(others, side[1:], strict=True)]
        body.append(el("tr", el("th", first, scope="row", class_=side[0]), cells))
    whole = el("table", el("thead", el("tr", titles)), el("tbody", body), class_=class_ or None, aria_label=caption)
    # The caption stays outside of what scrolls, or a small screen would cut it.
    box = el("div", whole, class_="scroll", tabindex=0, role="region", aria_label=f"{caption} (scrolls)")
    return el("figure", el("figcaption", caption), box)


def pairs(rows: Iterable[tuple[object, object]]) -> Safe:
    """Names and their values, one under the other."""
    return el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in rows], class_="pairs")


def note(*text: object) -> Safe:
    """A remark the reader should not miss."""
    return el("p", *text, class_="note")


def absent(*text: object) -> Safe:
    """Says plainly that something is not there."""
    return el("p", *text, class_="absent")


def swatch(colour: Sequence[int], name: object) -> Safe:
    """A class: its colour and its name."""
    return el("span", el("i", style=fill(colour), aria_hidden="true"), name, class_="swatch")


def fill(colour: Sequence[int]) -> str:
    """The CSS that fills with an 8-bit RGB colour."""
    return "background:rgb({},{},{})".format(*colour)


def picture(rgb: Pixels, alt: str, caption: object) -> Safe:
    """A uint8 ``[H, W, 3]`` image as an inline JPEG with a caption; noisy ones are packed harder."""
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    full = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    for quality in _QUALITIES:
        _, packed = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality, *full])
        if packed.nbytes <= _PICTURE:
            break
    source = "data:image/jpeg;base64," + base64.b64encode(packed.tobytes()).decode("ascii")
    height, width = rgb.shape[:2]
    image = el("img", src=source, alt=alt, width=width, height=height)
    return el("figure", image, el("figcaption", caption))


def number(value: object, digits: int = 3) -> str:
    """A score with fixed digits; a dash where it is undefined or absent."""
    if isinstance(value, int | float) and math.isfinite(value):
        return f"{value:.{digits}f}"
    return "\N{EN DASH}"


def span(ends: tuple[float, float] | None) -> str | None:
    """The ends of an interval in words; None where there is none."""
    return None if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def count(value: object) -> str:
    """A whole number with separators; a dash where it is absent."""
    return f"{value:,}" if isinstance(value, int | np.integer) else "\N{EN DASH}"


def percent(value: float) -> str:
    """A share in 0..1 as a percentage without needless digits."""
    return f"{100 * value:.0f} %" if value in (0, 1) or 0.0995 <= value < 0.995 else f"{100 * value:.1f} %"


def seconds(value: object) -> str:
    """A duration in the units a person would say."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "\N{EN DASH}"
    if value < _MINUTE:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def stylesheet() -> str:
    """The style sheet that all pages share, for a ``<style>`` element."""
    return files("eosin.report").joinpath("style.css").read_text(encoding="utf-8")
