import json

import pytest

from saaa.errors import DataError
from training.asg import EvaluateAsgConfig, evaluate
from training.asg.factual import measure, read_graph, read_rows

# Written for this test, in FACTUAL's notation.
PHRASES = [
    ("a red cup on a wooden table .", "( cup , on , table ) , ( cup , is , red ) , ( table , is , wooden )"),
    ("two dogs", "( dogs , is , 2 )"),
    ("a man riding a horse", "( man , ride , horse )"),
    ("a spoon", "( spoon )"),
    ("a boy with a kite near water", "( boy , with , kite ) , ( boy , near , water )"),
]


def test_a_graph_is_read_in_base_forms():
    graph = read_graph("( Dogs , is , two ) , ( dogs , run on , beaches ) , ( cup )")
    assert graph.objects == {"dog", "beach", "cup"}
    assert graph.attributes == {("dog", "2")}
    assert graph.relationships == {("dog", "run on", "beach")}
    assert graph.pairs == {("dog", "beach")}


def test_shares_are_counted_over_all_phrases():
    # All right but the last: "near water" is said of the kite, by the rule of the nearest thing.
    report = measure(PHRASES)
    assert report["phrases"] == 5
    assert report["objects"]["f1"] == 1
    assert report["attributes"]["found"] == 3
    assert report["attributes"]["recall"] == 1
    assert (report["relationships"]["precision"], report["relationships"]["recall"]) == (3 / 4, 3 / 4)
    assert report["all"]["wanted"] == report["all"]["found"] == 9 + 3 + 4
    assert report["all"]["f1"] == pytest.approx(15 / 16)


def test_other_words_for_a_relationship_are_the_same_pair():
    report = measure([("a cup on a table", "( cup , upon , table )")])
    assert report["relationships"]["f1"] == 0
    assert report["pairs"]["f1"] == 1


def write(path, rows):
    path.write_text("image_id,caption,scene_graph\n" + "".join(f'1,{c},"{g}"\n' for c, g in rows))
    return path


def test_a_file_is_measured_by_the_command(tmp_path, capsys):
    path = write(tmp_path / "dev.csv", PHRASES)
    report = evaluate(EvaluateAsgConfig(phrases=path, output=tmp_path / "out" / "asg.json"))
    assert json.loads((tmp_path / "out" / "asg.json").read_text()) == report == measure(PHRASES)
    printed = capsys.readouterr().out
    assert "5 phrases" in printed
    assert "relationships" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("caption,graph\na,b\n", "scene_graph"),
        ("caption,scene_graph\n", "no phrase"),
        ('caption,scene_graph\na cup,"( cup , on )"\n', "line 2.*2 parts"),
        ("caption,scene_graph\na cup\n", "line 2"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, text, message):
    path = tmp_path / "x.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_rows(path)
