"""Recipes: a strict YAML file that says which method, on which data, trained how, and what was published."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from eosin.core.errors import WrongUse, nearest
from eosin.core.fingerprint import digest
from eosin.core.values import FitSpec

M = TypeVar("M", bound=BaseModel)
ABLATIONS = "ablations"  # the folder of those that are shipped


class DataSpec(BaseModel):
    """What data a recipe is meant for.

    Attributes:
        name: the data set's name in its ``dataset.yaml``; for messages.
        phantom: knobs of drawn tissue, made when no ``--data`` is given.
        tile: side in pixels at which the model is scored and exported; 0 takes the side of the training items.
        margin: pixels of a tile's rim that are trusted less where tiles overlap; None takes an eighth of the tile.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    phantom: dict[str, Any] | None = None
    tile: int = Field(default=0, ge=0)
    margin: int | None = Field(default=None, ge=0)


class Claim(BaseModel):
    """Published numbers, in percent, with their source and protocol; ``hausdorff`` is in pixels, as printed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    protocol: str
    uses_truth: bool = False
    miou: float | None = None
    dice: float | None = None
    accuracy: float | None = None
    hausdorff: float | None = None
    iou: dict[str, float] = {}


class Recipe(BaseModel):
    """A run's whole settings. Unknown keys are errors that name the nearest right key.

    Attributes:
        method: name of the method.
        options: the method's own settings.
        data: the data it is meant for.
        fit: training settings; keys of a fit hold for every step, a step's name holds a mapping of its own.
        protocol: how it is scored.
        claim: what was published, if anything.
        seed: seeds weights, order, augmentation and sampling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    options: dict[str, Any] = {}
    data: DataSpec = DataSpec()
    fit: dict[str, Any] = {}
    protocol: str = "strict"
    claim: Claim | None = None
    seed: int = Field(default=0, ge=0)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides the result: all but what was claimed."""
        return digest(self.model_dump(exclude={"claim": True, "data": {"name"}}))

    def fit_spec(self, step: str) -> FitSpec:
        """The settings of one step: common keys first, over them those of its family, or its own where it has some.

        Raises:
            WrongUse: naming the key that is unknown or the value that cannot be.
        """
        own = self.fit.get(step, self.fit.get(family(step), {}))
        if not isinstance(own, Mapping):
            raise WrongUse(f"fit.{step}: expected keys and values, not {own!r}")
        common = {k: v for k, v in self.fit.items() if k in FitSpec.model_fields}
        return validated(FitSpec, merged(common, own), f"fit.{step}")


def family(step: str) -> str:
    """The name that the settings of a step stand under: ``student-3`` is the third round of ``student``."""
    return re.sub(r"-[0-9]+$", "", step)


class AblationRow(BaseModel):
    """One row of an ablation.

    Attributes:
        name: of the arm.
        set: dotted keys and values that it changes in the recipe; not the seed and the data, which all rows share.
        claim: what was published for the row. That of the recipe holds only for a row that sets nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    set: dict[str, JsonValue] = {}
    claim: Claim | None = None

    @field_validator("set")
    @classmethod
    def _own(cls, values: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for key, value in values.items():
            nested = _nested(key, value)
            data = nested.get("data", {})
            if nested.keys() & {"seed", "claim"} or not isinstance(data, Mapping) or data.keys() & {"name", "phantom"}:
                raise ValueError(f"{key!r} cannot be set by a row: all rows share data and seeds")
        return values


class Ablation(BaseModel):
    """The rows of an ablation table over one recipe.

    Attributes:
        base: the recipe that the rows change: a shipped name, or a YAML file, whose path begins at the ablation's.
        rows: the arms; the first is the baseline.
        layout: ``alone``: each row changes the base by itself; ``cumulative``: each row keeps what those above it set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    rows: tuple[AblationRow, ...] = Field(min_length=1)
    layout: Literal["alone", "cumulative"] = "alone"

    @field_validator("rows")
    @classmethod
    def _distinct(cls, rows: tuple[AblationRow, ...]) -> tuple[AblationRow, ...]:
        names = [row.name for row in rows]
        if len(set(names)) < len(names):
            raise ValueError("two rows have the same name")
        return rows

    def overrides(self, row: int) -> list[str]:
        """The ``key=value`` texts of a row, values as JSON, which is YAML too."""
        above = self.rows[: row + 1] if self.layout == "cumulative" else self.rows[row : row + 1]
        found = [f"{key}={json.dumps(value, ensure_ascii=False)}" for part in above for key, value in part.set.items()]
        claim = self.rows[row].claim
        if found or claim is not None:
            found.append("claim=null")  # what was printed for the recipe is not printed for a change of it
        return found if claim is None else [*found, f"claim={claim.model_dump_json()}"]


def load_ablation(name: str) -> Ablation:
    """Read an ablation by file path or shipped name.

    Raises:
        WrongUse: if it cannot be read or a key is not known, in one line.
    """
    text, where = _text(name, "ablation", [name], shipped(ABLATIONS))
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise WrongUse(f"{where}: not valid YAML ({' '.join(str(error).split())})") from None
    table = validated(Ablation, values, where)
    beside = Path(name).parent / table.base
    return table.model_copy(update={"base": str(beside)}) if _is_file(name) and _is_file(table.base) else table


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``above`` over ``below``; mappings in both are merged in turn."""
    result = dict(below)
    for key, value in above.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return result


def validated(model: type[M], values: Any, where: str) -> M:
    """Build a model; the first defect becomes one line.

    Raises:
        WrongUse: naming the place, the value and, for an unknown key, the nearest right one.
    """
    if not isinstance(values, Mapping):
        raise WrongUse(f"{where}: expected keys and values, not {values!r}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            fields = _fields(model, first["loc"][:-1])
            raise WrongUse(f"{where}: unknown key {key!r}{nearest(str(first['loc'][-1]), fields)}") from None
        if first["type"] == "missing":
            raise WrongUse(f"{where}: key {key!r} is missing; add it") from None
        value = f"{key} = {first['input']!r:.80}: " if key else ""
        raise WrongUse(f"{where}: {value}{first['msg'].removeprefix('Value error, ')}") from None


def _fields(model: type[BaseModel], at: Sequence[int | str]) -> list[str]:
    """The keys of the model at a place inside another, also where it may be left out (``Claim | None``)."""
    for part in at:
        if isinstance(part, int):  # a place in a list
            continue
        field = model.model_fields.get(part)
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def shipped(folder: str = "") -> dict[str, str]:
    """Text of every recipe in the package, or of all files of a folder beside them, by name."""
    place = files("eosin.recipes") / folder if folder else files("eosin.recipes")
    return {
        f.name.removesuffix(".yaml"): f.read_text(encoding="utf-8")
        for f in sorted(place.iterdir(), key=lambda f: f.name)
        if f.name.endswith(".yaml")
    }


def load(name: str, overrides: Sequence[str] = (), steps: Mapping[str, Sequence[str]] | None = None) -> Recipe:
    """Read a recipe by file path or shipped name and apply overrides.

    Args:
        name: path of a YAML file, a shipped name (``cam-glas``) or a method's name (its ``-default`` recipe).
        overrides: ``key.sub=value`` texts; values are read as YAML.
        steps: the trained steps of each known method, to check the names in ``fit``.

    Raises:
        WrongUse: for anything that cannot be read or is not known, in one line.
    """
    text, where = _text(name, "recipe", [name, f"{name.replace('_', '-')}-default"], shipped())
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise WrongUse(f"{where}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise WrongUse(f"{where}: a recipe is a mapping with at least 'method'")
    for override in overrides:
        values = merged(values, _override(override))
    recipe = validated(Recipe, values, where)
    allowed = [*FitSpec.model_fields, *((steps or {}).get(recipe.method) or recipe.fit)]
    for key in recipe.fit:
        if key not in allowed:
            raise WrongUse(f"{where}: unknown key 'fit.{key}'{nearest(key, allowed)}")
    for step in (steps or {}).get(recipe.method, ()):
        try:
            recipe.fit_spec(step)
        except WrongUse as error:
            raise WrongUse(f"{where}: {error}") from None
    return recipe


def _is_file(name: str) -> bool:
    """Whether a name is that of a file, not of something shipped."""
    return Path(name).suffix in (".yaml", ".yml")


def _text(name: str, kind: str, candidates: Sequence[str], known: Mapping[str, str]) -> tuple[bytes, str]:
    """A file's content, or that of the first candidate that is shipped, and what to call it."""
    if _is_file(name):
        if not Path(name).is_file():
            raise WrongUse(f"{name}: no such {kind} file")
        return Path(name).read_bytes(), name
    for candidate in candidates:
        if candidate in known:
            return known[candidate].encode(), f"{kind} {candidate}"
    names = [*known, *(own.removesuffix("-default") for own in known if own.endswith("-default"))]
    raise WrongUse(f"{kind} {name!r} is not shipped and is not a .yaml file{nearest(name, names)}")


def _override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise WrongUse(f"--set {text!r}: write key=value, e.g. fit.segmenter.epochs=3")
    try:
        return _nested(key, yaml.safe_load(value))
    except yaml.YAMLError:
        raise WrongUse(f"--set {text!r}: the value is not valid YAML") from None


def _nested(key: str, value: Any) -> dict[str, Any]:
    """``a.b`` and a value as ``{a: {b: value}}``."""
    first, *others = key.strip().split(".")
    for part in reversed(others):
        value = {part: value}
    return {first: value}


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(exclude_none=True, mode="json"), sort_keys=False, allow_unicode=True)
