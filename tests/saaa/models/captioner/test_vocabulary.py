import pytest

from saaa.errors import DataError
from saaa.models.captioner import BOS, EOS, UNK, Vocabulary


@pytest.fixture
def vocabulary():
    return Vocabulary(("BOS", "EOS", "UNK", "a", "red", "sofa"))


def test_encode_marks_both_ends_and_unknown_words(vocabulary):
    assert vocabulary.encode("a  green sofa", 25) == (BOS, 3, UNK, 5, EOS)


def test_a_cut_caption_loses_its_end(vocabulary):
    assert vocabulary.encode("a red sofa", 4) == (BOS, 3, 4, 5)


def test_decode_stops_at_the_first_end(vocabulary):
    assert vocabulary.decode([3, 5, EOS, 4]) == ("a", "sofa")


def test_words_are_collected_in_alphabetical_order():
    assert Vocabulary.of(["red sofa", "a red lamp"]).words == (
        "BOS",
        "EOS",
        "UNK",
        "a",
        "lamp",
        "red",
        "sofa",
    )


@pytest.mark.parametrize("words", [("BOS", "EOS", "UNK"), ("B", "E", "U", "a", "a"), ("B", "E", "U", "two words")])
def test_a_vocabulary_that_cannot_work_is_refused(words):
    with pytest.raises(DataError):
        Vocabulary(words)
