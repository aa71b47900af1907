"""The colours of classes: told apart by every eye, in every data set that is shipped."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest

from eosin.core.classes import Classes
from eosin.data import formats, phantom
from eosin.data.formats import importers
from eosin.data.formats._common import coloured
from eosin.report.reading import COLOURS
from oracles.colours import MACHADO, ciede2000, lab, least, seen

LEAST = 15.0
# CIEDE2000 of pairs of Sharma, Wu and Dalal 2005, table 1
SHARMA = (
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
    ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (61, -5, 29), 22.8977),
    ((50, 2.5, 0), (56, -27, -3), 31.9030),
    ((50, 2.5, 0), (58, 24, 15), 19.4535),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
)


def shipped() -> dict[str, Classes]:
    """The classes of every format that brings its own, and of the phantom."""
    modules = [import_module(f"{formats.__name__}.{found.name}") for found in pkgutil.iter_modules(formats.__path__)]
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for module in (phantom, *modules)
        for name, value in vars(module).items()
        if isinstance(value, Classes)
    }


@pytest.mark.parametrize(("one", "two", "distance"), SHARMA)
def test_the_oracle_agrees_with_published_pairs(one, two, distance) -> None:
    assert abs(ciede2000(one, two) - distance) < 5e-5 and abs(ciede2000(two, one) - distance) < 5e-5


def test_the_oracle_knows_white_grey_and_what_dichromats_mix_up() -> None:
    for eye in MACHADO:
        lightness, a, b = lab(seen((255, 255, 255), eye))
        assert abs(lightness - 100) < 0.01 and abs(a) < 0.01 and abs(b) < 0.01
    for eye, one, two in (("protan", (150, 60, 60), (78, 78, 60)), ("deutan", (150, 110, 60), (115, 126, 60))):
        normal, dichromat = (ciede2000(lab(seen(one, e)), lab(seen(two, e))) for e in ("normal", eye))
        assert normal > 15 > 2 * dichromat


def test_every_format_that_names_its_classes_is_tested() -> None:
    own = {name.partition(".")[0].replace("_", "-") for name in shipped()}
    assert set(importers()) - {"folder", "qupath"} <= own, "a format keeps its classes where this test does not look"


@pytest.mark.parametrize("name", sorted(shipped()))
def test_classes_can_be_told_apart(name: str) -> None:
    classes = shipped()[name]
    if len(classes) > 1:
        assert least(classes.colours)[0] >= LEAST, (name, least(classes.colours))


@pytest.mark.parametrize("amount", range(2, 11))
def test_colours_of_our_choice_can_be_told_apart(amount: int) -> None:
    colours = coloured([f"class {k}" for k in range(amount)]).colours
    assert least(colours)[0] >= LEAST, least(colours)


def test_colours_of_last_resort_can_be_told_apart() -> None:
    assert least(COLOURS)[0] >= LEAST
