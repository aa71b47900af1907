"""The tables of a comparison as plain cells; Markdown, LaTeX and HTML only dress them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from eosin.report.compare import words
from eosin.report.compare.form import Arm, Comparison, Published, Spread
from eosin.report.compare.words import DAGGER, DASH
from eosin.report.markup import number, seconds

_UP, _DOWN = 1, -1
_ARROWS = {_UP: "", 0: "", _DOWN: " \N{DOWNWARDS ARROW}"}
_MISSING = f"{DASH}: undefined, not scored or not noted, for at least one run of that row."
_BOLD = "Bold: the best of the methods trained from tags, by mean alone; that says nothing about chance."
# Title, digits and which way is better, by the name that scores.json gives the value.
_BOUNDARY = {
    "miou": ("Boundary IoU", 3, _UP),
    "hd": ("HD px", 1, _DOWN),
    "hd95": ("HD95 px", 1, _DOWN),
    "hd_um": ("HD µm", 1, _DOWN),
    "hd95_um": ("HD95 µm", 1, _DOWN),
}
_OBJECTS = {
    "f1": ("Object F1", 3, _UP),
    "dice": ("Object Dice", 3, _UP),
    "hausdorff": ("Object Hausdorff px", 1, _DOWN),
    "hausdorff_um": ("Object Hausdorff µm", 1, _DOWN),
}
_CALIBRATION = {
    "ece": ("ECE", 3, _DOWN),
    "ece_tempered": ("ECE, tempered", 3, _DOWN),
    "temperature": ("Temperature", 2, 0),
}

_PRINTED: tuple[tuple[str, Callable[[Published], float | None]], ...] = (
    ("mIoU %", lambda row: row.miou),
    ("Mean Dice or F1 %", lambda row: row.dice),
    ("Accuracy %", lambda row: row.accuracy),
    ("FwIoU %", lambda row: row.fwiou),
    ("\N{LEFT DOUBLE QUOTATION MARK}HD\N{RIGHT DOUBLE QUOTATION MARK} px", lambda row: row.hausdorff),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """Plain text, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A title; ``text`` columns are left-aligned; ``tissue`` is the class it belongs to, by index."""

    title: str
    text: bool = False
    tissue: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its name, a remark on it, numbers of footnotes; ``upper`` rows are bounds and stand last, apart."""

    name: str
    cells: tuple[Cell, ...]
    remark: str = ""
    footnotes: tuple[int, ...] = ()
    upper: bool = False
    baseline: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table: a key for anchors and labels, a title, the head of the first column, the others, rows, notes."""

    key: str
    title: str
    first: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Measure:
    """A column over arms: how a cell is said, and what decides the best (``better`` 1 high, -1 low, 0 none)."""

    column: Column
    say: Callable[[Arm], str]
    value: Callable[[Arm], float | None] = lambda _: None
    better: int = 0
    digits: int = 3


def all_tables(comparison: Comparison) -> list[Table]:
    """Every table that has something to say, in the order in which they are read."""
    tables = [scores(comparison), versus(comparison), shapes(comparison), cost(comparison), published(comparison)]
    return [table for table in tables if table is not None]


def scores(comparison: Comparison) -> Table:
    """Arms by classes, with the difference to the baseline."""
    c, word = comparison, words.run_word(comparison)
    mark = f" {DAGGER}" if c.uses_truth else ""
    measures = [_spread(Column(f"mIoU{mark}"), lambda a: a.miou)]
    if c.folds:
        measures[0] = replace(measures[0], column=Column("mIoU over folds"), better=0)
        column = Column(f"mIoU pooled{mark}")
        measures.insert(0, _Measure(column, lambda a: number(a.pooled), lambda a: a.pooled, _UP))
    measures.insert(1, _Measure(Column("95 % interval"), lambda a: words.interval(a.ci95)))
    for k, name in enumerate(c.classes):
        measures.append(_class(c, k, name))
    measures += [_spread(Column(f"mIoU {name}"), _of(lambda a: a.groups, name)) for name in _names(c, "groups")]
    measures += [
        _Measure(Column("Difference"), lambda a: DASH if a.versus is None else words.signed(a.versus.difference)),
        _Measure(Column("p (Holm)"), lambda a: DASH if a.versus is None else words.p_value(a.versus.p_holm)),
    ]
    measures += [
        _spread(Column(title), value)
        for title, value in (
            ("Mean Dice", lambda a: a.mdice),
            ("Accuracy", lambda a: a.accuracy),
            ("FwIoU", lambda a: a.fwiou),
        )
    ]
    over = f"mean {words.PLUS_MINUS} standard deviation over the {word}s"
    notes = [
        f"Scores in 0..1. A class column is that class's IoU. Columns are {over}"
        + ("; pooled, and the classes: from one confusion matrix over all folds." if c.folds else "."),
        f"95 % interval: bootstrap that draws whole {c.clustered_by}s"
        + (", of the pooled score." if c.folds else ", of the mean over the seeds."),
        f"Difference: of the mIoU to {c.baseline}. p: permutation test, Holm-corrected over the arms; see below.",
    ]
    whole = set(words.arm_named(c, c.baseline).labels)
    if short := [f"{a.name} ({words.runs(a)})" for a in c.arms if set(a.labels) != whole]:
        notes.append(f"Not the runs of {c.baseline}, so never bold: {', '.join(short)}.")
    return _table(comparison, "scores", f"Scores on {c.split}, protocol {c.protocol}{mark}", measures, notes)


def versus(comparison: Comparison) -> Table | None:
    """Every arm against the baseline; None where there is nothing but the baseline."""
    arms = [arm for arm in words.ordered(comparison) if arm.versus is not None]
    if not arms:
        return None
    c, word, base = comparison, words.run_word(comparison), words.arm_named(comparison, comparison.baseline)
    columns = ("Finding", "Difference", "95 % interval", "Gains in", "p", "p (Holm)", "Permuted")
    heads = tuple(Column(title, text=title in ("Permuted", "Finding")) for title in columns)
    rows = []
    for arm in arms:
        if (v := arm.versus) is not None:
            cells = [words.verdict(c, v), words.signed(v.difference), words.interval(v.ci95, sign=True)]
            cells += [words.gained(c, v), words.p_value(v.p), words.p_value(v.p_holm), words.clusters(c, v)]
            rows.append(_row(c, arm, [Cell(text) for text in (*cells, words.t_test(v))]))
    notes = [
        f"Difference in mIoU, paired by {word}; its interval draws whole {c.clustered_by}s, the same for both arms.",
        f"p: two-sided permutation test that swaps the confusion matrices of whole {c.clustered_by}s between the two "
        "arms; p (Holm): corrected over all arms of the table.",
        f"p asks about other {c.clustered_by}s for these trained models: the luck of their training is not in it, "
        f"which is why every {word} must gain.",
        f"Beats: a mean gain of 0.010 or more and a gain in every {word}; lower: a mean loss of 0.010 or more and "
        f"no {word} gains; anything else is no clear difference. A single {word} gives no verdict.",
        f"t-test as printed in papers: Student's, two-tailed, over the {word}s as independent samples; "
        "* p < .05, ** p < .01, *** p < .001. It ignores which images were scored and decides nothing here.",
    ]
    if differ := [a.name for a in arms if a.selection != base.selection]:
        notes.append(f"Epochs were not chosen as for {c.baseline}: {', '.join(differ)}. Such rows are no fair pair.")
    heads = (*heads, Column("t-test as printed in papers", text=True))
    return Table("versus", f"Against {c.baseline}", "Arm", heads, tuple(rows), tuple(notes))


def shapes(comparison: Comparison) -> Table | None:
    """Boundaries, objects and calibration; None where none was scored."""
    measures = []
    for group, known in (("boundary", _BOUNDARY), ("objects", _OBJECTS), ("calibration", _CALIBRATION)):
        found = _names(comparison, group)
        for name in [*(n for n in known if n in found), *(n for n in found if n not in known)]:
            title, digits, better = known.get(name, (f"{group}: {name.replace('_', ' ')}", 3, 0))
            column = Column(title + _ARROWS[better])
            measures.append(_spread(column, _of(_attribute(group), name), digits, better))
    if not measures:
        return None
    notes = [
        "Boundary IoU: of bands 2 px wide. HD, HD95: Hausdorff distance of boundaries and its 95th percentile. "
        f"ECE: expected calibration error. {_ARROWS[_DOWN].strip()}: less is better.",
    ]
    return _table(comparison, "shapes", "Boundaries, objects and calibration", measures, notes)


def cost(comparison: Comparison) -> Table:
    """What each arm cost, and how its epoch was chosen."""

    def whole(value: float | None, unit: str = "") -> str:
        return DASH if value is None else f"{round(value):,}{unit}"

    measures = [
        _Measure(Column("Selected by", text=True), lambda a: words.chosen(a.selection)),
        _Measure(Column("Training time"), lambda a: seconds(a.cost.training_s)),
        _Measure(Column("Wall time"), lambda a: seconds(a.cost.wall_s)),
        _Measure(Column("CPU time"), lambda a: seconds(a.cost.cpu_s)),
        _Measure(Column("Peak memory MB"), lambda a: whole(a.cost.memory_mb)),
        _Measure(Column("Parameters"), lambda a: whole(a.cost.parameters)),
        _Measure(Column("Images/s"), lambda a: number(a.cost.images_per_s, 1)),
        _Measure(Column("Runs", text=True), words.runs),
        _Measure(Column("Method", text=True), lambda a: a.method),
        _Measure(Column("Step", text=True), lambda a: a.step),
        _Measure(Column("Recipe", text=True), lambda a: f"{a.recipe or DASH} ({a.settings[:8]})"),
    ]
    notes = [
        "Means over the runs. Training time: inside the fits. Peak memory: resident, of the training process. "
        "Images/s: in training. Parameters: trained in the deployed step, helpers included. "
        f"Device: {comparison.device}.",
    ]
    if comparison.budget is not None:
        notes.append(f"Each method was given {comparison.budget:g} minutes.")
    return _table(comparison, "cost", "Selection and cost", measures, notes)


def published(comparison: Comparison) -> Table | None:
    """What papers print, in percent and in columns of its own; None where nothing is known."""
    rows: list[tuple[Published, list[str]]] = [(row, []) for row in comparison.published]
    for arm in comparison.arms:
        if arm.claim is not None:
            held = next((names for row, names in rows if _printed(row) == _printed(arm.claim)), None)
            if held is None:
                rows.append((arm.claim, [arm.name]))
            else:
                held.append(arm.name)
    if not rows:
        return None
    printed = dict.fromkeys(name for row, _ in rows for name in row.iou)
    order = [*(n for n in comparison.classes if n in printed), *(n for n in printed if n not in comparison.classes)]
    columns = [Column("Source", text=True), Column("Protocol", text=True)]
    means = [(title, value) for title, value in _PRINTED if any(value(row) is not None for row, _ in rows)]
    columns += [Column(title) for title, _ in means]
    tissues = {name: k for k, name in enumerate(comparison.classes)}
    columns += [Column(f"{name} %", tissue=tissues.get(name)) for name in order]
    columns.append(Column("Our arm of this recipe", text=True))
    body = []
    for row, arms in rows:
        scored = [number(v, 2) for v in (*(value(row) for _, value in means), *(row.iou.get(n) for n in order))]
        cells = [row.source, row.protocol, *scored, ", ".join(arms) or DASH]
        name = f"{row.method} {DAGGER}" if row.uses_truth else row.method
        body.append(Row(name, tuple(Cell(text) for text in cells), footnotes=row.notes))
    notes = ["In percent, as printed; scored by others, as a rule on other splits. Not to be read beside our columns."]
    if any(row.uses_truth for row, _ in rows):
        notes.append(f"{DAGGER} Used truth (image labels, as a rule) at test time.")
    return Table("published", "Published numbers", "Method", tuple(columns), tuple(body), tuple(notes))


def _printed(row: Published) -> tuple[object, ...]:
    """What is alike where a recipe's claim is a row that is listed already, whatever the method is called there."""
    return row.protocol, row.uses_truth, row.miou, row.dice, row.accuracy, dict(row.iou)


def _table(comparison: Comparison, key: str, title: str, measures: Sequence[_Measure], notes: Iterable[str]) -> Table:
    arms = words.ordered(comparison)
    whole = words.arm_named(comparison, comparison.baseline).labels
    columns = [_cells(measure, arms, whole) for measure in measures]
    rows = [_row(comparison, arm, [column[i] for column in columns]) for i, arm in enumerate(arms)]
    said = list(notes)
    if any(cell.best for column in columns for cell in column):
        said.append(_BOLD)
    if any(cell.text == DASH for row in rows if not row.baseline for cell in row.cells):
        said.append(_MISSING)
    return Table(key, title, "Arm", tuple(m.column for m in measures), tuple(rows), tuple(said))


def _cells(measure: _Measure, arms: Sequence[Arm], whole: Sequence[str]) -> list[Cell]:
    """One column.

    The best is sought at the digits shown, if there are two or more, among arms that were trained from tags and have
    the same ``whole`` runs as the baseline: a mean over fewer folds is one over other images.
    """
    fair = [arm.supervision == "tags" and set(arm.labels) == set(whole) for arm in arms]
    values = [measure.value(arm) if own else None for arm, own in zip(arms, fair, strict=True)]
    known = [round(v, measure.digits) for v in values if v is not None]
    best = None
    if measure.better and len(known) > 1:
        best = max(known) if measure.better == _UP else min(known)
    return [
        Cell(measure.say(arm), best is not None and value is not None and round(value, measure.digits) == best)
        for arm, value in zip(arms, values, strict=True)
    ]


def _row(comparison: Comparison, arm: Arm, cells: Sequence[Cell]) -> Row:
    upper, baseline = arm.supervision == "truth", arm.name == comparison.baseline
    remarks = ["baseline"] * baseline + ["upper bound, trained on truth"] * upper
    return Row(arm.name, tuple(cells), "; ".join(remarks), upper=upper, baseline=baseline)


def _spread(column: Column, value: Callable[[Arm], Spread | None], digits: int = 3, better: int = _UP) -> _Measure:
    def say(arm: Arm) -> str:
        found = value(arm)
        return DASH if found is None else words.spread(found, digits)

    def mean(arm: Arm) -> float | None:
        found = value(arm)
        return None if found is None else found.mean

    return _Measure(column, say, mean, better, digits)


def _class(c: Comparison, k: int, name: str) -> _Measure:
    """A class's IoU: pooled with folds, since a fold may lack the class, else over the runs."""
    if not c.folds:
        return _spread(Column(name, tissue=k), _of(lambda a: a.iou, name))
    column = Column(name, tissue=k)
    return _Measure(column, lambda a: number(a.pooled_iou.get(name)), lambda a: a.pooled_iou.get(name), _UP)


def _of(group: Callable[[Arm], Mapping[str, Spread]], name: str) -> Callable[[Arm], Spread | None]:
    return lambda arm: group(arm).get(name)


def _attribute(name: str) -> Callable[[Arm], Mapping[str, Spread]]:
    def get(arm: Arm) -> Mapping[str, Spread]:
        found: Mapping[str, Spread] = getattr(arm, name)
        return found

    return get


def _names(comparison: Comparison, group: str) -> list[str]:
    """The names that any arm has in a group, in order of first sight."""
    return list(dict.fromkeys(name for arm in comparison.arms for name in _attribute(group)(arm)))
