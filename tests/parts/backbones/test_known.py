"""Known weights: told with source, terms and digest, and named by their terms where a model begins with them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from command_line import call
from eosin.parts.backbones.encoder import Encoder
from eosin.parts.backbones.known import NOT_KNOWN, NVIDIA, known_weights, promised, terms

FIELDS = ["name", "about", "source", "licence", "sha256", "offline"]


@pytest.fixture(scope="module")
def listed() -> dict[str, dict[str, str]]:
    from eosin.verbs import list_known

    return {row["name"]: row for row in list_known("weights")}


def test_the_command_line_lists_them_with_all_that_is_to_be_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "weights", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [known.name for known in known_weights()]
    assert len({row["name"] for row in rows}) == len(rows) >= 20
    for row in rows:
        assert list(row) == FIELDS and all(row.values()), row["name"]
        assert row["source"].startswith("https://") and not re.search(r"\s{2}|\n", "".join(row.values()))
    assert call("list", "weights") == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("weights", "source", "licence", "sha256", "offline", "22405ba7...", "NVIDIA"))


def test_the_other_lists_have_a_name_and_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "protocols", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows and all(list(row) == ["name", "about"] for row in rows)


def test_what_can_be_listed_is_named_when_it_is_not_known() -> None:
    from eosin.core.errors import WrongUse
    from eosin.verbs import list_known

    with pytest.raises(WrongUse, match=r"cannot list 'wights' \(did you mean 'weights'\?\)"):
        list_known("wights")


def test_no_digest_is_told_but_those_that_a_name_promises(listed: dict[str, dict[str, str]]) -> None:
    """torch.hub's rule: name-<how the SHA-256 begins>.pth."""
    for name, row in listed.items():
        match = re.search(r"-([0-9a-f]{8})\.pth$", name)
        assert row["sha256"] == (f"{match[1]}..." if match else NOT_KNOWN)
        assert promised(name) == (match[1] if match else "")
    assert promised("mine.pth") == "" and promised("resnest101-22405ba7.pth") == "22405ba7"


def test_fetched_ones_are_told_as_the_libraries_have_them(listed: dict[str, dict[str, str]]) -> None:
    import timm
    from segmentation_models_pytorch import encoders

    for name in ("resnet18", "resnest101e", "vgg16_bn", "vit_small_patch16_384", "swin_tiny_patch4_window7_224"):
        config = timm.get_pretrained_cfg(name)
        assert config is not None and listed[name]["licence"] == config.license
        assert listed[name]["source"] == f"https://huggingface.co/{config.hf_hub_id}"
        assert f"({config.tag})" in listed[name]["about"]
    for size in range(6):
        settings = encoders.encoders[f"mit_b{size}"]["pretrained_settings"]["imagenet"]
        assert listed[f"mit_b{size}"]["source"] == f"https://huggingface.co/{settings['repo_id']}"
        assert "non-commercial" in listed[f"mit_b{size}"]["licence"]


def test_files_name_an_encoder_that_exists(listed: dict[str, dict[str, str]]) -> None:
    import torch

    files = [row for row in listed.values() if row["about"].startswith("for ")]
    assert len(files) == 9 and {"res38d.pth", "bt_rn50_ep200.torch"} < {row["name"] for row in files}
    for encoder in {row["about"].removeprefix("for ").partition(":")[0] for row in files}:
        with torch.device("meta"):
            Encoder(encoder, (1,))


class TestTerms:
    def test_those_of_known_weights_are_named(self) -> None:
        told = terms(
            {
                "encoder": "resnet18",
                "pretrained": "imagenet",
                "seg_encoder": "mit_b1",
                "seg_pretrained": "imagenet",
                "teacher_encoder": "vgg16",
                "teacher_pretrained": "imagenet",
                "other_pretrained": "none",
                "share": 0.1,
            }
        )
        assert told == (
            "pretrained = imagenet (resnet18): apache-2.0",
            f"seg_pretrained = imagenet (mit_b1): {NVIDIA}",
            "teacher_pretrained = imagenet (vgg16): bsd-3-clause",
        )

    @pytest.mark.parametrize(
        ("options", "line"),
        [
            (
                {"encoder": "resnet50", "pretrained": "some/where/bt_rn50_ep200.torch"},
                "pretrained = bt_rn50_ep200.torch: Lunit Public License: non-commercial, for research only",
            ),
            ({"pretrained": "x/mine.pth"}, "pretrained = mine.pth: terms not known to eosin; ask whom it is from"),
            (
                {"seg_encoder": "resnet18", "seg_pretrained": "imagenet"},
                "seg_pretrained = imagenet (resnet18): the terms of https://huggingface.co/smp-hub/resnet18.imagenet",
            ),
            (
                {"seg_encoder": "tu-resnest101e", "seg_pretrained": "imagenet"},
                "seg_pretrained = imagenet (tu-resnest101e): apache-2.0",
            ),
            (
                {"seg_encoder": "resnext101_32x16d", "seg_pretrained": "imagenet"},
                "seg_pretrained = imagenet (resnext101_32x16d): not known",
            ),
            (
                {"encoder": "resnet50.tv_in1k", "pretrained": "imagenet"},
                "pretrained = imagenet (resnet50.tv_in1k): bsd-3-clause",
            ),
            ({"encoder": "nothing", "pretrained": "imagenet"}, "pretrained = imagenet (nothing): not known"),
            ({"encoder": "resnet18.foo", "pretrained": "imagenet"}, "pretrained = imagenet (resnet18.foo): not known"),
            ({"pretrained": "imagenet"}, "pretrained = imagenet: not known"),
        ],
    )
    def test_those_of_others_are_told_as_far_as_they_are_known(self, options: dict, line: str) -> None:
        assert terms(options) == (line,)

    def test_no_path_is_told(self, tmp_path: Path) -> None:
        assert str(tmp_path) not in terms({"pretrained": str(tmp_path / "w.pth")})[0]

    def test_nothing_is_told_of_a_model_that_begins_from_scratch(self) -> None:
        assert terms({"encoder": "mit_b1", "pretrained": "none", "seg_pretrained": "none"}) == ()
