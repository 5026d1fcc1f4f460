"""Attributions of classes, words and nodes on the page: what is shown, what is said to be missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saaa.client.attributions import Attribution, Concept, Faithfulness, Prediction, Region, WordTarget
from saaa.client.results import Analysis
from saaa.report import ReportEntry, draw_attribution, write_report
from saaa.report.attributions import faithfulness_note, target_note
from tests.saaa.report.example import Markup, analysis, photo, png

WHOLE = Region(x=0, y=0, width=160, height=160)
BASE = analysis()
LAMP, RED, TABLE, ON = BASE.caption_nodes
CLASS = Attribution(
    target=Prediction(label="kitchen", index=3, probability=0.75),
    method="cp_lrp",
    grid=np.eye(3, dtype=np.float32),
    region=WHOLE,
)
WORD = replace(
    CLASS,
    target=WordTarget(index=1, text="<table>"),
    method="attention",
    node_weights=np.array([0.25, 0, -0.5, 0.125], np.float32),
)
NODE = replace(WORD, target=RED)
MEASURED = (
    Concept(
        node=LAMP,
        mass=0.5,
        density=3,
        score=0.875,
        score_definition="effect_share",
        effect=1.5,
        effect_definition="shapley",
    ),
    Concept(
        node=ON,
        mass=0.5,
        density=1,
        score=0.25,
        score_definition="effect_share",
        effect=-0.75,
        effect_definition="shapley_interaction",
        gap_mass=0.0625,
        weaker_mass=0.125,
    ),
)


def page(folder: Path, *attributions: Attribution) -> Markup:
    shown: Analysis = replace(BASE, attributions=attributions)
    entry = ReportEntry(file="photo.png", image_bytes=png(photo()), analysis=shown)
    markup = Markup(write_report(folder, [entry]).read_text())
    assert markup.open == []
    return markup


def words_of(markup: Markup) -> str:
    return " ".join(markup.texts)


@pytest.mark.parametrize(
    ("faithfulness", "note"),
    [
        ((Faithfulness(measure="not_computed"),), "faithfulness: NOT COMPUTED"),
        ((), "faithfulness: NOT COMPUTED"),
        ((Faithfulness(measure="deletion_drop", value=0.25),), "faithfulness: deletion drop 0.250"),
        (
            (Faithfulness(measure="completeness_gap", value=0.0), Faithfulness(measure="deletion_drop", value=-0.125)),
            "faithfulness: completeness gap 0.000, deletion drop -0.125",
        ),
    ],
)
def test_faithfulness_is_always_told(tmp_path: Path, faithfulness: tuple[Faithfulness, ...], note: str) -> None:
    shown = replace(CLASS, faithfulness=faithfulness)
    assert faithfulness_note(shown) == note
    assert note in words_of(page(tmp_path, shown))


def test_targets_are_named() -> None:
    assert [target_note(shown) for shown in (CLASS, WORD, NODE)] == ["75.0%", "words[1]", "attribute"]
    for shown in (CLASS, WORD, NODE):
        assert draw_attribution(photo(), shown).mode == "RGB"


def test_words_and_nodes_show_their_map_and_node_weights(tmp_path: Path) -> None:
    markup = page(tmp_path, CLASS, WORD, NODE)
    text = words_of(markup)
    for expected in (
        "Attribution: kitchen, cp_lrp",
        "Word of the caption: <table>, attention",
        "Node in the caption: red",
    ):
        assert expected in text
    assert text.count("Speaks for it") == 2
    assert "-0.50" in text
    pictures = [value for tag, name, value in markup.attributes if (tag, name) == ("img", "alt")]
    assert "Heat map for <table>, attention" in pictures
    assert len(list(tmp_path.glob("*.attribution.*.png"))) == 3
    # Bars: the largest weight fills its track, negative ones show nothing.
    bars = [value for tag, name, value in markup.attributes if (tag, name) == ("span", "style") and "width" in value]
    assert "width:50.0%" in bars
    # Weights that do not belong to the nodes shown are left out rather than misread.
    stray = page(tmp_path, replace(WORD, node_weights=np.ones(3, np.float32)))
    assert "Speaks for it" not in words_of(stray)


def test_effects_scores_and_agreement_are_shown(tmp_path: Path) -> None:
    markup = page(tmp_path, replace(CLASS, concepts=MEASURED, concept_agreement=-0.5))
    text = words_of(markup)
    for expected in (
        "+1.500", "-0.750", "0.88", "Effect (logit)", "positive effects", "-0.50 (1 is the same)", "between 6.2%",
        "weaker end 12.5%",
    ):  # fmt: skip
        assert expected in text
    titles = [value for tag, name, value in markup.attributes if (tag, name) == ("td", "title")]
    assert titles == ["shapley", "shapley_interaction"]
    assert "cannot be told" in words_of(page(tmp_path, replace(CLASS, concepts=MEASURED)))


def test_without_effects_the_page_says_so(tmp_path: Path) -> None:
    plain = tuple(replace(concept, effect=None, score_definition="density_share") for concept in MEASURED)
    text = words_of(page(tmp_path, replace(CLASS, concepts=plain)))
    assert "effects were not measured" in text
    assert "Effect (logit)" not in text
    assert "rank the objects" not in text
