"""What the documentation says holds: commands parse, links lead somewhere, options and defaults are the code's."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

import eosin
from eosin.cli import What, app
from eosin.core.lab import Lab
from eosin.core.values import Augment, FitSpec
from eosin.data import contract
from eosin.data.formats import importers
from eosin.data.phantom import PhantomSpec
from eosin.methods.discover import methods
from eosin.metrics.protocols import PROTOCOLS
from eosin.recipe import Ablation, AblationRow, Claim, DataSpec, Recipe, load, load_ablation, shipped, validated
from eosin.verbs.train import resolve

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = {
    str(file.relative_to(REPOSITORY)): file.read_text(encoding="utf-8")
    for file in [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)

# page, heading, and the settings whose table stands below it
TABLES: list[tuple[str, str, type[BaseModel]]] = [
    ("docs/recipes.md", "The recipe", Recipe),
    ("docs/recipes.md", "Data", DataSpec),
    ("docs/recipes.md", "Fit settings", FitSpec),
    ("docs/recipes.md", "Augmentation", Augment),
    ("docs/recipes.md", "Claim", Claim),
    ("docs/recipes.md", "Ablations", Ablation),
    ("docs/recipes.md", "Ablations", AblationRow),
    ("docs/phantom.md", "Settings", PhantomSpec),
    ("docs/data-contract.md", "dataset.yaml", contract.Head),
    *((f"docs/methods/{name.replace('_', '-')}.md", "Options", kind) for name, kind in methods().items()),
    *(("docs/data-contract.md", name, importer.Options) for name, importer in importers().items()),
]


def fences(*languages: str) -> list[tuple[str, str]]:
    """Page and content of every fenced block in one of the languages."""
    found = ((page, *match.groups()) for page, text in PAGES.items() for match in FENCE.finditer(text))
    return [(page, block) for page, language, block in found if language in languages]


def commands() -> list[tuple[str, str]]:
    """Page and text of every command of a shell block; lines that end in a backslash are joined."""
    lines = [(page, line) for page, block in fences("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [(page, line) for page, line in lines if line.startswith("eosin ")]


def spans() -> list[tuple[str, str]]:
    """Page and text of every ``eosin ...`` in running text."""
    prose = ((page, FENCE.sub("", text)) for page, text in PAGES.items())
    return sorted({(page, span) for page, text in prose for span in re.findall(r"`(eosin [^`]+)`", text)})


@cache
def verbs() -> dict[str, Any]:
    """The commands of the real command line, by their words: ``run``, ``data check``."""

    def below(command: Any, words: str) -> Iterator[tuple[str, Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, f"{words} {name}".strip())
        if not hasattr(command, "commands"):
            yield words, command

    return dict(below(get_command(app), ""))


def split(text: str) -> tuple[str, list[str], list[str]]:
    """The verb, what stands behind it, and the options before it. ``data`` alone is a verb that is not complete."""
    words = shlex.split(text, comments=True)[1:]
    before = []
    while words and words[0].startswith("-"):
        before.append(words.pop(0))
    count = 2 if words[:1] == ["data"] else 1
    return " ".join(words[:count]), words[count:], before


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts if name.startswith("-")}


def section(page: str, title: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    headings = list(HEADING.finditer(FENCE.sub(lambda match: " " * len(match[0]), PAGES[page])))
    for i, heading in enumerate(headings):
        if heading[2].replace("`", "") == title:
            level = len(heading[1])
            end = next((h.start() for h in headings[i + 1 :] if len(h[1]) <= level), len(PAGES[page]))
            return PAGES[page][heading.end() : end]
    raise AssertionError(f"{page} has no heading {title!r}")


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each table row, by the name in its first cell."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return {cells[0].strip().strip("`"): [cell.strip() for cell in cells] for cells in lines}


def shown(field: Any) -> str | None:
    """A default as a table shows it; None where the page describes the whole default elsewhere."""
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return None
    return f"`{default if isinstance(default, str) and default else json.dumps(default)}`"


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    titles = [heading[2] for heading in HEADING.finditer(FENCE.sub("", PAGES[page]))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("page", "text"), commands())
def test_every_command_of_a_shell_block_parses(page: str, text: str) -> None:
    verb, words, before = split(text)
    assert set(before) <= options(get_command(app))
    given = verbs()[verb].make_context(verb, words).params  # raises what a user would see
    if verb == "run":
        if not given["recipe"].endswith(".yaml"):
            load(given["recipe"], given["overrides"], {name: kind.steps for name, kind in methods().items()})
    elif verb == "data import":
        known = importers()[given["form"]].Options.model_fields
        assert {option.partition("=")[0] for option in given["options"]} <= set(known)
    elif verb == "score":
        assert given["protocol"] in PROTOCOLS


@pytest.mark.parametrize(("page", "text"), spans())
def test_every_command_in_running_text_exists(page: str, text: str) -> None:
    verb, words, before = split(text)
    assert set(before) <= options(get_command(app)) | {"--help"}
    if verb and verb != "data":
        known = options(verbs()[verb])
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known | {"--help"}


def test_the_command_line_page_tells_every_verb_and_option() -> None:
    page = "docs/command-line.md"
    for name, command in verbs().items():
        told = rows(section(page, f"eosin {name}"))
        wanted = options(command) | {p.name.upper() for p in command.params if not p.opts[0].startswith("-")}
        wanted = {"FORMAT" if argument == "FORM" else argument for argument in wanted}  # what the help calls it
        files = {cell for cell in told if re.fullmatch(r"[\w-]+(\.\w+)+", cell)}
        assert {cell.removesuffix("...") for cell in set(told) - files} == wanted, name
        for parameter in command.params:
            default = parameter.default
            if isinstance(default, str | int | Path) and not isinstance(default, bool):
                assert told[parameter.opts[0]][1] == f"`{default}`", (name, parameter.name)
        assert f"`{name}`" in section(page, "JSON"), name


def test_the_command_line_page_tells_what_can_be_listed() -> None:
    told = rows(section("docs/command-line.md", "eosin list"))["WHAT"][2]
    assert set(re.findall(r"`(\w+)`", told)) == {what.value for what in What}


def test_the_command_line_page_tells_every_name_of_the_package() -> None:
    told = rows(section("docs/command-line.md", "From Python"))
    assert set(told) == {f"eosin.{name}" for name in eosin.__all__}


@pytest.mark.parametrize(("page", "heading", "model"), TABLES, ids=lambda value: getattr(value, "__name__", None))
def test_every_setting_is_told_with_its_default(page: str, heading: str, model: type[BaseModel]) -> None:
    told = rows(section(page, heading))
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    assert set(fields) <= set(told), f"{page} does not tell {sorted(set(fields) - set(told))}"
    for name, field in fields.items():
        if (default := shown(field)) is not None:
            assert told[name][1] == default, f"{page}: {name}"


@pytest.mark.parametrize("name", methods())
def test_a_method_has_a_page_with_its_headings_recipes_and_reference(name: str) -> None:
    kind, page = methods()[name], f"docs/methods/{name.replace('_', '-')}.md"
    for heading in ("Idea", "Follows", "Differs", "Shapes", "Options", "Recipes", "Known limits"):
        assert section(page, heading).strip(), heading
    own = {recipe for recipe, text in shipped().items() if yaml.safe_load(text)["method"] == name}
    assert own == set(re.findall(r"^\| \[`([^`]+)`\]", section(page, "Recipes"), re.MULTILINE))
    title = re.sub(r"[^a-z]", "", kind.paper.partition(":")[2].rpartition(",")[0].lower())
    assert title in re.sub(r"[^a-z]", "", (REPOSITORY / "docs" / "references.bib").read_text().lower())


@pytest.mark.parametrize(("page", "block"), fences("yaml"))
def test_every_yaml_block_is_a_recipe_an_ablation_or_a_data_set(page: str, block: str, tmp_path: Path) -> None:
    values = yaml.safe_load(block)
    if "schema" in values:
        findings: list[contract.Finding] = []
        head = contract.parse_head(Path("dataset.yaml"), block.encode(), findings)
        assert head is not None and not findings
        table = next(b for p, b in fences("csv") if p == page)
        assert contract.parse_table(Path("items.csv"), table.encode(), head, findings) is not None and not findings
        return
    (tmp_path / "my.yaml").write_text(block)
    known = methods()
    if "rows" in values:
        table = load_ablation(str(tmp_path / "my.yaml"))
        for row in range(len(table.rows)):
            resolve(table.base, table.overrides(row))
        return
    recipe = load(str(tmp_path / "my.yaml"), (), {name: kind.steps for name, kind in known.items()})
    validated(known[recipe.method], recipe.options, page)
    validated(PhantomSpec, recipe.data.phantom or {}, page)


@pytest.mark.parametrize(("page", "block"), fences("python"))
def test_every_python_block_uses_what_eosin_has(page: str, block: str) -> None:
    """Every block is valid Python, and what it imports from eosin or asks of it or of a lab is there."""
    told: list[tuple[Any, str]] = []
    for node in ast.walk(ast.parse(block, page)):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "eosin":
            told += [(import_module(str(node.module)), alias.name) for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            told += [(thing, node.attr) for name, thing in (("eosin", eosin), ("lab", Lab)) if node.value.id == name]
    assert told, f"{page}: a block without eosin"
    assert not [name for thing, name in told if not hasattr(thing, name)], page


def test_the_data_contract_tells_every_column_and_every_finding() -> None:
    page = "docs/data-contract.md"
    assert set(rows(section(page, "items.csv"))) == set(contract.FIXED)
    told = rows(section(page, "What is checked"))
    assert set(told) == {*found_kinds(), *contract.KNOWN}
    assert all(f"`{kind}`" in section(page, "Known findings") for kind in contract.KNOWN)


def found_kinds() -> set[str]:
    """The kinds that the code gives its findings: the last argument wherever one is made."""
    kinds = set()
    for name in ("contract.py", "check.py"):
        for node in ast.walk(ast.parse((REPOSITORY / "src" / "eosin" / "data" / name).read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[-1], ast.Constant):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if called in ("Finding", "_wrong", "_refuse", "_bad"):
                    kinds.add(node.args[-1].value)
    return kinds


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    prose = FENCE.sub("", PAGES[page])
    links = [*re.findall(r"\]\(([^)\s]+)\)", prose), *re.findall(r"<img [^>]*src=\"([^\"]+)\"", prose)]
    for link in links:
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (REPOSITORY / page).parent / target if target else REPOSITORY / page
        assert file.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(str(file.resolve().relative_to(REPOSITORY))), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_is_there(page: str) -> None:
    """Python files in backticks are files of the repository (or, in the advice on adding one, called x)."""
    files = {
        file.relative_to(REPOSITORY).as_posix()
        for folder in ("src", "tests", "benchmarks", "docs")
        for file in (REPOSITORY / folder).rglob("*.py")
    }
    for name in re.findall(r"`([\w/]+\.py)`", PAGES[page]):
        assert name.endswith("/x.py") or any(f"/{file}".endswith(f"/{name}") for file in files), f"{page}: {name}"


def test_the_architecture_page_names_every_room() -> None:
    told = rows(section("docs/architecture.md", "Rooms"))
    package = REPOSITORY / "src" / "eosin"
    rooms = {file.parent.name for file in package.glob("*/__init__.py")} | {file.stem for file in package.glob("*.py")}
    assert set(told) == rooms - {"__init__", "__main__", "_compat", "recipes"}


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_short(page: str) -> None:
    """Tables, pictures and generated pages cannot wrap."""
    if not page.startswith("docs/results/"):
        lines = [line for line in PAGES[page].splitlines() if not line.startswith(("|", "!["))]
        assert not [line for line in lines if len(line) > 120]
