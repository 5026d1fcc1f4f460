"""Lists of concepts: what counts as an answer, asking again, going on where it stopped, files."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saaa.errors import DataError, GeneratorFailed, OptionInvalid
from tests.training.debugging.endpoint import Answer, Endpoint, endpoint, refuses, says
from training.cli import main
from training.debugging.concept_lists import first_json, list_concepts, read_concepts, read_phrase
from training.debugging.llm import Llm, LlmOptions, Transcript

pytest.importorskip("openai")

RECORDED = Path(__file__).with_name("smollm_transcript.jsonl")
"""What SmolLM2-135M-Instruct answered to `saaa-train concepts --count 3`, once with --temperature 1, once with
--no_constrain --max_tokens 30; when the question changes, record it anew from smollm_server.py."""


def model(path: Path, served: Endpoint | None = None, **options: Any) -> Llm:
    base_url = None if served is None else served.base_url
    return Llm(LlmOptions(model="m", base_url=base_url, **{"retries": 0} | options), Transcript(path))


@pytest.mark.parametrize(
    "text",
    [
        '["easel", "paint tube"]',
        '{"concepts": ["easel", "paint tube"]}',
        'Sure! Here they are:\n```json\n{"concepts": [\n  "easel",\n  "paint tube"]}\n```\nAnything else?',
        'I [really] like { braces: ["Easel.", "a Paint  tube"] and ["more"]',
        '{"concepts": [" the EASEL ", "\\"paint_tube\\""]}',
    ],
)
def test_lists_are_read_out_of_prose(text: str, tmp_path: Path) -> None:
    with endpoint([says(text)]) as served:
        llm = model(tmp_path / "transcript.jsonl", served)
        assert list_concepts(["art_studio"], llm, count=2) == {"art_studio": ("easel", "paint tube")}
    (body,) = served.bodies
    (message,) = body["messages"]
    assert '"art studio"' in message["content"]
    assert "exactly 2" in message["content"]
    form = body["response_format"]["json_schema"]["schema"]
    assert form["properties"]["concepts"] == {
        "type": "array",
        "items": {"type": "string"},
        "minItems": 2,
        "maxItems": 2,
    }


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "no complete JSON"),
        ("1. easel\n2. paint", "no complete JSON"),
        ('{"concepts": ["easel", "pai', "no complete JSON"),
        ("[" * 5000, "no complete JSON"),
        ({"items": ["easel", "paint"]}, "not of the form"),
        ({"concepts": "easel, paint"}, "not of the form"),
        ({"concepts": [1, 2]}, "not of the form"),
        ([["easel", "paint"]], "not of the form"),
        (["easel"], "lists 1 concepts of 'art_studio' in place of 2"),
        (["easel", "paint", "brush"], "lists 3 concepts"),
        (["easel", "An easel."], "'easel' more than once"),
        (["easel", "the Art Studio"], "the class 'art studio' itself"),
        (["easel", ""], "'' is no phrase"),
        (["easel", "a brush that somebody has left"], "no phrase of at most 4 plain words"),
        (["easel", "x" * 41], "no phrase"),
        (["easel", "<script>alert(1)</script>"], "no phrase"),
        (["easel", "\x1b[31mred\x00"], r"' \[31mred'|'\[31mred' is no phrase"),
        (["easel", "{token}"], "no phrase"),
        (["easel", "\ud800"], "'' is no phrase"),
    ],
)
def test_an_answer_of_no_use_is_asked_again_with_the_reason(answer: Any, reason: str, tmp_path: Path) -> None:
    with endpoint([says(answer), says(["easel", "paint"])]) as served:
        llm = model(tmp_path / "transcript.jsonl", served)
        assert list_concepts(["art_studio"], llm, count=2, attempts=2) == {"art_studio": ("easel", "paint")}
    first, second = (body["messages"] for body in served.bodies)
    assert second[:1] == first
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[1]["content"]
    with endpoint([says(answer)] * 2) as served:
        llm = model(tmp_path / "other.jsonl", served)
        with pytest.raises(GeneratorFailed, match=f"(?s)'art_studio' in 2 answers.*{reason}") as failed:
            list_concepts(["art_studio"], llm, count=2, attempts=2)
    assert failed.value.message.isprintable()
    assert len(failed.value.message) < 800
    assert len(served.bodies) == len(Transcript(tmp_path / "other.jsonl")) == 2


def test_more_attempts_go_on_from_the_answers_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    with endpoint([says("No idea."), says("None at all."), says(["easel"])]) as served:
        for attempts in (2, 2):
            with pytest.raises(GeneratorFailed, match="None at all"):
                list_concepts(["art_studio"], model(path, served), count=1, attempts=attempts)
        assert len(served.bodies) == 2
        assert list_concepts(["art_studio"], model(path, served), count=1) == {"art_studio": ("easel",)}
    assert len(served.bodies) == 3


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "classes.json").write_text('{"art_studio": 0, "kitchen": 1, "hall": 2}', encoding="utf-8")
    classes, out = tmp_path / "classes.json", tmp_path / "out"
    return ["concepts", "--model", "m", "--classes", str(classes), "--out", str(out), "--count", "1", "--retries", "0"]


LISTS = {"art_studio": ["easel"], "kitchen": ["oven"], "hall": ["coat rack"]}


def test_a_failure_half_way_loses_nothing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "llm_concepts.json"
    with endpoint([says(["easel"]), refuses(500), says(["oven"]), says(["coat rack"])]) as served:
        assert main([*command, "--base_url", served.base_url]) == 2
        assert "500" in capsys.readouterr().err
        assert not path.exists()
        assert main([*command, "--base_url", served.base_url]) == 0
        assert len(served.bodies) == 4
    content = path.read_bytes()
    assert json.loads(content) == LISTS
    assert main(command) == 0
    assert path.read_bytes() == content
    assert read_concepts(path, ["hall", "kitchen"]) == {"hall": ("coat rack",), "kitchen": ("oven",)}


def test_killed_while_it_waits_for_an_answer(command: list[str], tmp_path: Path) -> None:
    transcript = tmp_path / "out" / "transcript.jsonl"
    with endpoint([says(["easel"]), Answer(hang=True), says(["oven"]), says(["coat rack"])]) as served:
        words = [*command, "--base_url", served.base_url]
        job = subprocess.Popen([sys.executable, "-m", "training", *words], stderr=subprocess.DEVNULL)
        try:
            while len(served.bodies) < 2:
                assert job.poll() is None
                time.sleep(0.01)
        finally:
            job.kill()
            job.wait()
        assert len(Transcript(transcript)) == 1
        assert main(words) == 0
        assert len(served.bodies) == 4
    assert json.loads((tmp_path / "out" / "llm_concepts.json").read_text(encoding="utf-8")) == LISTS


def test_what_a_real_model_answered(tmp_path: Path) -> None:
    content = RECORDED.read_bytes()
    path = tmp_path / "transcript.jsonl"
    path.write_bytes(content)
    held = Llm(LlmOptions(model="smollm2-135m", temperature=1), Transcript(path))
    assert list_concepts(["art_studio", "bathroom", "dining_room"], held, count=3) == {
        "art_studio": ("objects", "objects with", "frag encompassing"),
        "bathroom": ("tooth diff", "tooth brushed", "tooth flossing"),
        "dining_room": ("metal plates", "catch frogs", "looking glass"),
    }
    with pytest.raises(GeneratorFailed, match=r"'kitchen' in 3 answers.*'kit' more than once.*kit tattoo"):
        list_concepts(["kitchen"], held, count=3)
    with pytest.raises(OptionInvalid, match="give base_url"):
        list_concepts(["kitchen"], held, count=3, attempts=4)
    free = Llm(LlmOptions(model="smollm2-135m", max_tokens=30), Transcript(path))
    with pytest.raises(GeneratorFailed, match=r"'art_studio' in 3 answers.*no complete JSON.*3\. Attribute"):
        list_concepts(["art_studio"], free, count=3, constrain=False)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "cannot be read"),
        ("[]", "no mapping"),
        ("[" * 99_999, "cannot be read"),
        ('{"hall": ["coat"]}', "no concepts of kitchen"),
        ('{"hall": ["coat"], "kitchen": []}', "0 concepts of 'kitchen' in place of one or more"),
        ('{"hall": ["coat"], "kitchen": "oven"}', "not of the form"),
        ('{"hall": ["coat"], "kitchen": ["oven", "an oven"]}', "'oven' more than once"),
        ('{"hall": ["coat"], "kitchen": ["<b>"]}', "no phrase"),
    ],
)
def test_a_file_of_no_use(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "lists.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=reason):
        read_concepts(path, ["hall", "kitchen"])
    with pytest.raises(DataError, match="cannot be read"):
        read_concepts(tmp_path / "none.json", ["hall", "kitchen"])


@given(text=st.text())
def test_phrases_are_fixed_points(text: str) -> None:
    try:
        phrase = read_phrase(text)
    except ValueError:
        return
    assert read_phrase(phrase) == phrase == phrase.strip().lower()
    assert 1 <= len(phrase.split()) <= 4
    assert not set(phrase) & set('<>{}[]"\\/')


@given(
    value=st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).filter(
        lambda value: not isinstance(value, str)
    ),
    before=st.text().filter(lambda text: not set(text) & set("[{")),
    after=st.text(),
)
def test_the_first_json_is_found(value: Any, before: str, after: str) -> None:
    assert first_json(before + json.dumps(value) + after) == value
