from __future__ import annotations

from dataclasses import replace

import pytest

from saaa.errors import BackendUnavailable, ModelNotFound
from saaa.work import ModelKind
from serving.models.catalog import Catalog
from tests.serving.pixel_backend import CAPTIONER, CLASSIFIER


def catalog(*versions: str) -> Catalog:
    made = Catalog()
    made.describe([replace(CLASSIFIER, version=version) for version in versions] + [CAPTIONER])
    return made


def test_highest_version_counts_numbers_as_numbers() -> None:
    assert catalog("1.9", "1.10", "1.2").find("colours").version == "1.10"
    assert catalog("2", "10", "9").find("colours").version == "10"
    assert catalog("1.0rc1", "1.0", "1.0.1").find("colours").version == "1.0.1"


def test_default_is_the_first_by_name_in_its_highest_version() -> None:
    made = Catalog()
    made.describe([replace(CLASSIFIER, name=name, version=v) for name, v in (("b", "9"), ("a", "1"), ("a", "2"))])
    default = made.default(ModelKind.EGDD)
    assert default is not None
    assert (default.name, default.version) == ("a", "2")
    assert made.default(ModelKind.EGA) is None


def test_unknown_names_are_answered_with_those_there_are() -> None:
    with pytest.raises(ModelNotFound, match="colours") as missing:
        catalog("1").find("nobody", kind=ModelKind.EGDD, field="classifier.name")
    assert missing.value.field == "classifier.name"
    assert "words" not in missing.value.message
    with pytest.raises(ModelNotFound, match="are 1, 2") as missing:
        catalog("1", "2").find("colours", "3", field="classifier.name")
    assert missing.value.field == "classifier.version"


def test_long_names_are_cut_in_messages() -> None:
    with pytest.raises(ModelNotFound) as missing:
        catalog("1").find("x" * 10_000)
    assert len(missing.value.message) < 200


def test_nothing_is_known_before_the_backend_was_reached() -> None:
    with pytest.raises(BackendUnavailable):
        Catalog().require_known()


def test_only_ready_models_answer() -> None:
    made = catalog("1")
    with pytest.raises(BackendUnavailable):
        made.require_ready(CLASSIFIER)
    made.set_ready(frozenset({("colours", "1")}))
    made.require_ready(CLASSIFIER)
    assert not made.is_ready(CAPTIONER)


def test_what_is_described_again_is_in_memory_once() -> None:
    made = catalog("1", "2")
    before = made.models
    made.describe([replace(CLASSIFIER, version="1"), replace(CLASSIFIER, version="2", runtime="another"), CAPTIONER])
    one, two, words = made.models
    assert one is before[0]
    assert words is before[2]
    assert (before[1].runtime, two.runtime) == ("", "another")
