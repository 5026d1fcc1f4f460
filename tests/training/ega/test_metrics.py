import shutil

import numpy as np
import pytest

from training.ega import metrics
from training.ega.metrics import MetricMissing, bleu, cider, meteor, rouge_l, score, spice

REFERENCES = [["a red sofa near a lamp", "a sofa by a lamp"], ["a blue bed on a rug"], ["two cats sleep here"]]
THEMSELVES = [said[0].split() for said in REFERENCES]
OTHERS = [REFERENCES[k - 1][0].split() for k in range(3)]


def test_cider_is_highest_for_the_reference_itself():
    own, other = cider(THEMSELVES, REFERENCES), cider(OTHERS, REFERENCES)
    assert own.shape == (3,)
    assert own[1] == pytest.approx(1000)  # one reference, given word for word, every length of n-gram present
    assert (own > 4 * other).all()


def test_bleu_is_of_the_corpus():
    """Hand-solved: 5 of 6 words are right and 3 of 4 pairs, the captions as long as the references."""
    one, two, three, _ = bleu([["a", "b", "c", "x"], ["d", "e"]], [["a b c d"], ["d e"]])
    assert one == pytest.approx(100 * 5 / 6)
    assert two == pytest.approx(100 * (5 / 6 * 3 / 4) ** 0.5)
    assert three < two
    assert bleu(THEMSELVES, REFERENCES) == pytest.approx((100,) * 4)


def test_rouge_is_the_longest_common_subsequence():
    """Hand-solved: "a c" of "a b c" (2 / 3) and of "a x c d" (2 / 4), weighed by beta 1.2."""
    recall, precision, beta2 = 2 / 3, 2 / 4, 1.2**2
    wanted = (1 + beta2) * recall * precision / (recall + beta2 * precision)
    assert rouge_l([["a", "x", "c", "d"]], [["a b c"]]) == pytest.approx(100 * wanted)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR needs Java")
def test_meteor_is_the_library_s_and_survives_empty_captions():
    """Its program takes 10 s to start."""
    from pycocoevalcap.meteor.meteor import Meteor

    captions = [["a", "red", "couch", "near", "a", "lamp"], [], ["two", "cats"]]
    references = [["a red sofa near a lamp", "a sofa | a ||| lamp"], ["a bed"], ["two cats sleep here"]]
    found = meteor(captions, references)
    given = {k: [" ".join(words) or "."] for k, words in enumerate(captions)}
    cleaned = {k: [text.replace("||| ", "") for text in said] for k, said in enumerate(references)}
    theirs, _ = Meteor().compute_score(cleaned, given)
    assert found == pytest.approx(100 * theirs)
    assert 0 < found < 100


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\ncat\n", None])
def test_a_java_that_does_not_work_is_no_crash(monkeypatch, tmp_path, program):
    if program is not None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "java").write_text(program)
        (tmp_path / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MetricMissing, match="METEOR's program fails"):
        meteor(THEMSELVES, REFERENCES)


def test_what_cannot_be_computed_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))  # there is no java in it
    found = score(THEMSELVES, REFERENCES)
    assert found.values["meteor"] is None
    assert "METEOR" in found.missing["meteor"]
    assert found.values["rouge_l"] == pytest.approx(100)
    assert set(found.values) == {"bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider", "spice"}
    assert set(found.missing) == {name for name, value in found.values.items() if value is None}


def test_spice_names_its_jars_and_never_fetches_them(monkeypatch, tmp_path):
    (tmp_path / "spice").mkdir()
    (tmp_path / "spice" / "spice-1.0.jar").touch()
    monkeypatch.setattr(metrics, "_package", lambda: tmp_path)
    with pytest.raises(MetricMissing, match=r"^stanford-corenlp-3\.6\.0\.jar and stanford-corenlp-3\.6\.0-models\.jar"):
        spice(THEMSELVES, REFERENCES)
    assert not (tmp_path / "spice" / "lib").exists()


def test_empty_captions_are_worth_nothing():
    nothing: list[list[str]] = [[], [], []]
    assert bleu(nothing, REFERENCES) == pytest.approx((0,) * 4, abs=1e-3)
    assert rouge_l(nothing, REFERENCES) == 0
    assert not np.any(cider(nothing, REFERENCES))
