"""The tables as plain cells: what stands where, what is bold, what is said below."""

from __future__ import annotations

from dataclasses import replace

from eosin.report.compare.tables import Cell, Table, all_tables, cost, published, scores, shapes, versus
from report.compare.fake_comparison import CLAIM, arm, by_folds, by_seeds, comparison, spread, with_gaps


def column(table: Table, title: str) -> list[str]:
    at = [c.title for c in table.columns].index(title)
    return [row.cells[at].text for row in table.rows]


def bold(table: Table, title: str) -> list[str]:
    at = [c.title for c in table.columns].index(title)
    return [row.name for row in table.rows if row.cells[at].best]


def test_scores_over_seeds() -> None:
    table = scores(by_seeds())
    assert [row.name for row in table.rows] == ["cam", "mlps_x (a 50% change)", "wide", "supervised"]
    assert [row.upper for row in table.rows] == [False, False, False, True]
    assert [row.remark for row in table.rows] == ["baseline", "", "", "upper bound, trained on truth"]
    assert column(table, "mIoU") == ["0.520 ± 0.010", "0.562 ± 0.008", "0.523 ± 0.008", "0.710 ± 0.010"]
    assert column(table, "tumour")[0] == "0.520 ± 0.010" and column(table, "mIoU tumour + stroma")[0].startswith(
        "0.545"
    )
    assert column(table, "Difference") == ["–", "+0.042", "+0.003", "+0.190"]
    assert column(table, "p (Holm)") == ["–", "< .001", ".031", ".031"]
    assert [c.title for c in table.columns if c.tissue is not None] == ["background", "tumour", "stroma"]


def test_the_best_is_sought_among_methods_trained_from_tags() -> None:
    table = scores(by_seeds())
    for title in ("mIoU", "tumour", "Mean Dice"):
        assert bold(table, title) == ["mlps_x (a 50% change)"]
    assert bold(table, "Difference") == []
    assert bold(shapes(by_seeds()), "ECE \N{DOWNWARDS ARROW}") == ["cam"]  # type: ignore[arg-type]
    assert any(note.startswith("Bold") for note in table.notes)
    alone = scores(comparison([arm("cam", (0.5, 0.6)), arm("supervised", (0.7, 0.8), supervision="truth")]))
    assert not any(cell.best for row in alone.rows for cell in row.cells)
    assert not any(note.startswith("Bold") for note in alone.notes)


def test_what_looks_alike_is_bold_alike() -> None:
    table = scores(comparison([arm("a", (0.5000,)), arm("b", (0.5004,)), arm("c", (0.49,))]))
    assert bold(table, "mIoU") == ["a", "b"]


def test_folds_are_led_by_the_pooled_score() -> None:
    table = scores(by_folds())
    assert [c.title for c in table.columns][:3] == ["mIoU pooled", "95 % interval", "mIoU over folds"]
    assert column(table, "mIoU pooled") == ["0.612", "0.655"]
    assert column(table, "mIoU over folds") == ["0.600 ± 0.100", "0.605 ± 0.078"]
    assert any("Not the runs of cam, so never bold: supervised (seed 0; fold 1, 2)." in note for note in table.notes)
    assert not any(cell.best for row in table.rows for cell in row.cells)


def test_missing_values_are_dashes_and_said() -> None:
    made = with_gaps()
    tables = all_tables(made)
    assert [table.key for table in tables] == ["scores", "versus", "cost"]
    assert shapes(made) is None and published(made) is None
    text = repr(tables)
    assert "nan" not in text and "'None" not in text
    assert column(scores(made), "mIoU †") == ["0.500", "–"]
    assert any(note.startswith("–: undefined") for note in scores(made).notes)
    assert column(cost(made), "Peak memory MB") == ["812", "–"] and column(cost(made), "Runs") == ["seed 0", "seed 0"]
    assert any("10 minutes" in note for note in cost(made).notes)


def test_versus_says_how_it_was_tested() -> None:
    table = versus(by_seeds())
    assert table is not None
    assert column(table, "Finding") == ["beats cam", "no clear difference to cam", "beats cam"]
    assert column(table, "Gains in") == ["3 of 3 seeds", "1 of 3 seeds", "3 of 3 seeds"]
    assert column(table, "Permuted")[:2] == [
        "4 patients, all permutations counted",
        "145 patients, permutations drawn at random",
    ]
    assert column(table, "t-test as printed in papers") == [
        "t = 3.46, p = .026 *",
        "t = 3.46, p = .026",
        "t = 3.46, p = .026 *",
    ]
    assert versus(comparison([arm("cam", (0.5,))])) is None


def test_other_selection_is_no_fair_pair() -> None:
    table = versus(with_gaps())
    assert table is not None and any("Epochs were not chosen as for cam: tpro" in note for note in table.notes)


def test_shapes_in_their_units() -> None:
    more = {"f1": spread(0.8125), "hausdorff_um": spread(15.625)}
    table = shapes(comparison([arm("cam", (0.5,), objects=more), arm("b", (0.6,))]))
    assert table is not None
    titles = [c.title for c in table.columns]
    assert titles[:4] == ["Boundary IoU", "HD95 px ↓", "Object F1", "Object Hausdorff µm ↓"]
    assert column(table, "Object F1") == ["0.812", "–"] and column(table, "Object Hausdorff µm ↓") == ["15.6", "–"]


def test_published_rows_stay_in_percent_and_apart() -> None:
    table = published(by_seeds())
    assert table is not None
    assert [row.name for row in table.rows] == ["CAM & friends †", "Others"]
    assert [row.footnotes for row in table.rows] == [(1, 2), ()]
    numbers = [c.title for c in table.columns if not c.text]
    assert numbers[:2] == ["mIoU %", "Mean Dice or F1 %"] and all("%" in title for title in numbers)
    assert numbers[2:] == ["tumour %", "stroma %", "necrosis %"]
    assert column(table, "mIoU %") == ["61.50", "55.00"] and column(table, "Our arm of this recipe") == ["cam", "–"]
    for other in all_tables(by_seeds())[:-1]:
        assert not any("61.5" in cell.text for row in other.rows for cell in row.cells)


def test_a_claim_that_is_not_listed_gets_its_own_row() -> None:
    claim = replace(CLAIM, miou=70.0, uses_truth=False)
    table = published(replace(by_seeds(), arms=(arm("cam", (0.5,), claim=claim), arm("b", (0.5,), claim=claim))))
    assert table is not None
    assert column(table, "mIoU %") == ["61.50", "55.00", "70.00"]
    assert column(table, "Our arm of this recipe") == ["–", "–", "cam, b"]
    assert table.rows[2].cells[0] == Cell(claim.source)
