"""Options in files and on the command line of `saaa up` and `saaa serve`."""

from __future__ import annotations

import string
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from saaa.errors import OptionInvalid
from serving.backends.process import TorchServeOptions
from serving.commands import starting
from serving.commands.cli import main
from serving.commands.config import HIDDEN, to_yaml, with_file
from serving.security.settings import SecuritySettings
from serving.settings import FacadeSettings, LaneSettings, RequestLimits
from serving.telemetry.settings import TelemetrySettings
from tests.serving.commands.test_cli import one_line


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would have been started."""
    calls: list[tuple[Any, ...]] = []

    def note(*arguments: Any, **options: Any) -> int:
        calls.append((*arguments, options))
        return 0

    monkeypatch.setattr(starting, "run_up", note)
    monkeypatch.setattr(starting, "run_serve", note)
    return calls


def test_every_option_survives_the_way_through_a_file(
    tmp_path: Path, started: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "up --models some/where --backend local --port 0 --host 0.0.0.0 --predict.max_batch 3 --explain.max_wait_s 0.5 "
        "--limits.max_steps 9 --tokens t.json --calls_per_s 1e-1 --allow_plain_text --no_reflection --metrics_port 0 "
        "--ratings r.sqlite --log_level info --classifier_workers 5"
    ).split()
    assert main(words) == 0
    assert main([*words, "--print_config"]) == 0
    file = tmp_path / "options.yaml"
    file.write_text(capsys.readouterr().out)
    assert main(["up", "--config", str(file)]) == 0
    assert main(["up", f"--config={file}", "--models", "other", "--predict.max_batch", "4", "--reflection"]) == 0
    models, facade, options = started[0]
    assert started[1] == started[0]
    assert models == Path("some/where")
    assert options == {"torchserve": None}
    assert facade == FacadeSettings(
        host="0.0.0.0",
        port=0,
        predict=LaneSettings(max_in_flight=2, max_batch=3),
        explain=LaneSettings(max_batch=4, first_estimate_s=0.2, max_wait_s=0.5),
        limits=RequestLimits(max_steps=9),
        security=SecuritySettings(tokens=Path("t.json"), calls_per_s=0.1, allow_plain_text=True),
        telemetry=TelemetrySettings(metrics_port=0, log_level="info"),
        reflection=False,
        ratings="r.sqlite",
    )
    over = replace(facade, predict=replace(facade.predict, max_batch=4), reflection=True)
    assert started[2] == (Path("other"), over, options)
    assert len(started) == 3


def test_defaults_are_the_settings_own(started: list[tuple[Any, ...]]) -> None:
    assert main(["up", "--models", "m"]) == 0
    assert main(["serve", "--backend_address", "h:1"]) == 0
    assert started == [
        (Path("m"), FacadeSettings(), {"torchserve": TorchServeOptions()}),
        ("h:1", None, FacadeSettings(), {"models": None, "workers": 1}),
    ]


def test_hyphens_and_underscores_both_work(started: list[tuple[Any, ...]]) -> None:
    assert main("serve --backend-address h:1 --predict.max-batch 2 --no-reflection".split()) == 0
    (call,) = started
    assert (call[2].predict.max_batch, call[2].reflection) == (2, False)


def test_a_few_lines_suffice_and_null_undoes(tmp_path: Path, started: list[tuple[Any, ...]]) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("backend_address: h:1\nmanagement_address: null\nlimits: {max_steps: 7}\nreflection: yes\n")
    assert main(["serve", "--config", str(file)]) == 0
    facade = FacadeSettings(limits=RequestLimits(max_steps=7))
    assert started == [("h:1", None, facade, {"models": None, "workers": 1})]
    assert main(["serve", "--config", str(file), "--models", "store", "--workers", "2"]) == 0
    assert started[1] == ("h:1", None, facade, {"models": Path("store"), "workers": 2})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        ("- a list", "port: 50051"),
        ("just words", "port: 50051"),
        ("a: [", "Cannot read"),
        (f"ratings: postgresql://me:{HIDDEN}@h/d", "password"),
        ("models: m\nport: 70000", "port"),
        ("models: m\nhost: 0.0.0.0", "tls_certificate"),
        ("models: m\ntls_key: k.pem", "tls_key"),
    ],
)
def test_an_unusable_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, told: str, started: list[tuple[Any, ...]]
) -> None:
    file = tmp_path / "options.yaml"
    if content is not None:
        file.write_text(content)
    assert main(["up", "--config", str(file)]) == 2
    assert told in one_line(capsys)
    assert not started


@pytest.mark.parametrize("content", ["models: m\nunheard: 3", "models: m\nport: many", "models: m\nbackend: abacus"])
def test_an_unknown_option_or_a_wrong_type_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, started: list[tuple[Any, ...]]
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(content)
    with pytest.raises(SystemExit) as exit_:
        main(["up", "--config", str(file)])
    assert exit_.value.code == 2
    assert content.splitlines()[1].partition(":")[0] in capsys.readouterr().err
    assert not started


@settings(deadline=None)
@given(password=st.text(string.ascii_letters + string.digits + string.punctuation + " ", min_size=1))
def test_no_password_is_shown(password: str) -> None:
    # Whatever else is shown is none of these.
    secret = f"x{password}yz9"
    for url in (f"postgresql://me:{secret}@h/d", f"postgresql://h/d?user=me&password={secret.replace('&', '')}"):
        shown = yaml.safe_load(to_yaml({"ratings": url}))["ratings"]
        assert secret not in shown
        assert secret.replace("&", "") not in shown
        assert HIDDEN in shown
        with pytest.raises(OptionInvalid, match="password"):
            _read_back(shown)
    assert yaml.safe_load(to_yaml({"ratings": "plain:file@home"}))["ratings"] == "plain:file@home"


def _read_back(ratings: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"ratings": ratings}, file)
        file.flush()
        with_file(["--config", file.name])


def test_unusable_certificates_and_tokens_are_one_line_before_any_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing"
    for words in (
        ["--tokens", missing],
        ["--tls_certificate", missing, "--tls_key", missing],
        ["--jwt_keys", missing, "--jwt_issuer", "me", "--jwt_audience", "you"],
    ):
        assert main([str(word) for word in ("up", "--models", tmp_path, "--port", 0, *words)]) == 2
        assert "missing" in one_line(capsys)
