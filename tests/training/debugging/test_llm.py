"""A language model's endpoint: busy, broken, hanging, out of reach; its key; the transcript."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saaa.errors import DataError, GeneratorFailed, OptionInvalid
from tests.training.debugging.endpoint import Answer, endpoint, refuses, says
from training.debugging.llm import Llm, LlmOptions, Transcript

pytest.importorskip("openai")

KEY = "sk-Very-Secret-0123456789"


def question(text: str = "Well?") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def make(path: Path, base_url: str | None, **options: Any) -> Llm:
    return Llm(LlmOptions(model="m", base_url=base_url, **{"timeout": 20} | options), Transcript(path))


def test_answers_are_kept_and_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "transcript.jsonl"
    with endpoint([says("Yes."), says("No.")]) as served:
        llm = make(path, served.base_url)
        assert [llm.ask(question()), llm.ask(question()), llm.ask(question("And?"))] == ["Yes.", "Yes.", "No."]
        assert llm.ask(question("And?")) == "No."
        assert make(path, served.base_url).ask(question()) == "Yes."
    assert [body["messages"] for body in served.bodies] == [question(), question("And?")]
    assert make(path, None).ask(question("And?")) == "No."
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert first["request"] == {"model": "m", "messages": question()} == served.bodies[0]
    assert first["answer"] == "Yes."
    assert first["finish"] == "stop"
    assert first["usage"] == {"total_tokens": 7}
    assert set(first) == {"request", "answer", "finish", "usage", "time", "seconds"}


def test_other_options_are_other_requests(tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    schema = {"type": "object"}
    with endpoint([says(str(i)) for i in range(4)]) as served:
        answers = [
            make(path, served.base_url).ask(question()),
            make(path, served.base_url, temperature=0.5).ask(question()),
            make(path, served.base_url, max_tokens=9).ask(question()),
            make(path, served.base_url).ask(question(), schema),
        ]
    assert answers == ["0", "1", "2", "3"]
    assert served.bodies[1]["temperature"] == 0.5
    assert served.bodies[2]["max_tokens"] == 9
    assert served.bodies[3]["response_format"]["json_schema"]["schema"] == schema
    assert make(path, None, temperature=0.5).ask(question()) == "1"


def test_without_endpoint_a_missing_answer_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match=r"no answer of m .* give base_url.* Well\?"):
        make(tmp_path / "transcript.jsonl", None).ask(question())


@pytest.mark.parametrize("trouble", [refuses(429), refuses(500), refuses(503), Answer("{}", cut=True)])
def test_passing_trouble_is_waited_out(trouble: Answer, tmp_path: Path) -> None:
    with endpoint([trouble, trouble, says("Yes.")]) as served:
        assert make(tmp_path / "transcript.jsonl", served.base_url, retries=2).ask(question()) == "Yes."
    assert len(served.bodies) == 3


@pytest.mark.parametrize(
    ("answers", "reason", "asked"),
    [
        ([refuses(503)] * 9, "answers 503: .*out of order", 3),
        ([refuses(401, "wrong key")], "answers 401: .*wrong key.*key_variable", 1),
        ([refuses(404, "no such model")], "answers 404: .*no such model.*/v1", 1),
        ([refuses(400, "unknown response_format")], "answers 400: .*unknown response_format.*--no_constrain", 1),
        ([Answer("<html>Welcome</html>")], "no chat completion: '<html>Welcome", 1),
        ([Answer("[" * 100_000)], "no chat completion", 1),
        ([Answer('{"choices": []}')], "no chat completion", 1),
        ([Answer('{"choices": [{"message": {"content": {"a": 1}}}]}')], "no chat completion", 1),
        ([Answer("\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"))], "no chat completion", 1),
    ],
)
def test_lasting_trouble_is_told(answers: list[Answer], reason: str, asked: int, tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    with endpoint(answers) as served:
        with pytest.raises(GeneratorFailed, match=reason) as failed:
            make(path, served.base_url, retries=2).ask(question())
        assert served.base_url in failed.value.message
    assert len(served.bodies) == asked
    assert not path.exists()


def test_an_empty_answer_is_one(tmp_path: Path) -> None:
    with endpoint([Answer('{"choices": [{"message": {"content": null}}]}')]) as served:
        assert make(tmp_path / "transcript.jsonl", served.base_url).ask(question()) == ""


def test_a_hanging_endpoint_costs_its_timeout(tmp_path: Path) -> None:
    told = pytest.raises(GeneratorFailed, match=r"did not answer within 0\.2 s, asked 2 times.* start again")
    with endpoint([Answer(hang=True)] * 2) as served, told:
        make(tmp_path / "transcript.jsonl", served.base_url, timeout=0.2, retries=1).ask(question())
    assert len(served.bodies) == 2


def test_an_endpoint_out_of_reach(tmp_path: Path) -> None:
    with endpoint([]) as served:
        pass
    with pytest.raises(GeneratorFailed, match="cannot be reached, asked 1 times"):
        make(tmp_path / "transcript.jsonl", served.base_url, retries=0).ask(question())


def test_the_key_is_sent_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "transcript.jsonl"
    monkeypatch.setenv("SOME_KEY", KEY + "\n")
    with endpoint([says(f"Your key is {KEY}."), refuses(401, f"not the key {KEY}"), Answer(f"Bearer {KEY}")]) as served:
        llm = make(path, served.base_url, key_variable="SOME_KEY")
        assert llm.ask(question()) == "Your key is [key]."
        for text in ("second", "third"):
            with pytest.raises(GeneratorFailed) as failed:
                llm.ask(question(text))
            assert KEY not in failed.value.message
            assert "[key]" in failed.value.message
    assert served.keys == [f"Bearer {KEY}"] * 3
    assert KEY not in path.read_text(encoding="utf-8")


def test_a_key_goes_only_where_it_is_meant_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client library's own variable is not read: that key may be another endpoint's."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with endpoint([says("Yes.")]) as served:
        make(tmp_path / "transcript.jsonl", served.base_url).ask(question())
    assert KEY not in str(served.keys)


@pytest.mark.parametrize("value", [None, "", " ", "kéy", "two\nlines"])
def test_a_key_that_is_none(value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(OptionInvalid, match="SOME_KEY") as invalid:
        make(tmp_path / "transcript.jsonl", "http://127.0.0.1:1/v1", key_variable="SOME_KEY")
    assert not (value and value.strip()) or value not in invalid.value.message


@pytest.mark.parametrize(
    "options",
    [
        {"model": " "},
        {"timeout": 0},
        {"retries": -1},
        {"temperature": 3},
        {"max_tokens": 0},
        {"base_url": "localhost:11434"},
        {"base_url": "file:///etc/passwd"},
        {"base_url": f"https://user:{KEY}@host/v1"},
        {"base_url": f"https://host/v1?key={KEY}"},
        {"base_url": "http://[::1"},
        {"key_variable": KEY},
        {"key_variable": ""},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(OptionInvalid) as invalid:
        LlmOptions(**{"model": "m"} | options)
    assert KEY not in invalid.value.message


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_cut_off_costs_its_answer_only(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    with endpoint([says("Yes."), says("No."), says("No again."), says("Last.")]) as served:
        llm = make(path, served.base_url)
        llm.ask(question("a"))
        llm.ask(question("b"))
        path.write_bytes(path.read_bytes()[:-cut])
        llm = make(path, served.base_url)
        assert llm.ask(question("a")) == "Yes."
        # Without its line end alone the line is still whole.
        assert llm.ask(question("b")) == ("No." if cut == 1 else "No again.")
        last = llm.ask(question("c"))
    again = make(path, None)
    assert [again.ask(question(text)) for text in "abc"] == ["Yes.", llm.ask(question("b")), last]


def test_what_is_no_record_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    good = json.dumps({"request": {"model": "m", "messages": question()}, "answer": "Yes."})
    odd = ["", "[]", "null", '{"request": 1}', '{"request": {}, "answer": 3}', "\xff", "[" * 99_999, good, "{"]
    path.write_bytes("\n".join(odd).encode("latin-1"))
    assert make(path, None).ask(question()) == "Yes."
    assert len(Transcript(path)) == 1


def test_a_transcript_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        Transcript(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="Cannot write"):
        Transcript(tmp_path / "file" / "transcript.jsonl").add({}, "")
