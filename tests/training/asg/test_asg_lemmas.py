import pytest

from training.asg.lemmas import is_plural, singular, tokens, verb_base, words


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        ("dogs", "dog"),
        ("boxes", "box"),
        ("benches", "bench"),
        ("glasses", "glasses"),
        ("women", "woman"),
        ("people", "person"),
        ("puppies", "puppy"),
        ("ties", "tie"),
        ("horses", "horse"),
        ("buses", "bus"),
        ("bus", "bus"),
        ("grass", "grass"),
        ("tennis rackets", "tennis racket"),
        ("knives", "knife"),
        ("potatoes", "potato"),
    ],
)
def test_singular(plural, one):
    assert singular(plural) == one
    assert is_plural(plural) == (plural != one)


@pytest.mark.parametrize(
    ("form", "base"),
    [
        ("sitting", "sit"),
        ("riding", "ride"),
        ("rides", "ride"),
        ("carries", "carry"),
        ("carried", "carry"),
        ("held", "hold"),
        ("parked", "park"),
        ("made", "make"),
        ("lying", "lie"),
        ("watches", "watch"),
        ("has", "have"),
        ("jogging", "jog"),
        ("building", None),
        ("string", None),
        ("table", None),
        ("red", None),
    ],
)
def test_verb_base(form, base):
    assert verb_base(form) == base


def test_words_are_those_of_published_captions():
    assert words("A man's dog, running in the T-shirt!") == "a man 's dog running in the t-shirt"
    assert tokens("Dogs, cats.") == ("dogs", ",", "cats", ".")
    assert words("  ...  ") == ""
