import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.asg.lemmas import tokens
from training.asg.phrases import parse


def things(caption):
    return {m.name: m.attributes for m in parse(caption).mentions}


def links(caption):
    phrase = parse(caption)
    return {(phrase.mentions[k.subject].name, k.name, phrase.mentions[k.object].name) for k in phrase.links}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red ball", {"ball": ["red"]}),
        ("two black and white dogs", {"dogs": ["two", "black", "white"]}),
        ("a smiling man", {"man": ["smiling"]}),
        ("a man smiling", {"man": ["smiling"]}),
        ("the sky is blue and cloudy", {"sky": ["blue", "cloudy"]}),
        ("a stop sign", {"stop sign": []}),
        ("an orange on a glass table", {"orange": [], "table": ["glass"]}),
        ("a group of people", {"people": ["group of"]}),
        ("there is a bunch of bananas", {"bananas": []}),
        ("a picture of a cat", {"cat": []}),
        ("a tree and a very tall building", {"tree": [], "building": ["tall"]}),
        ("", {}),
        ("on the", {}),
    ],
)
def test_things_with_what_stands_before_them(caption, expected):
    assert things(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a cup on a table", {("cup", "on", "table")}),
        ("A man is riding a big brown horse.", {("man", "riding", "horse")}),
        ("a man rides a horse", {("man", "rides", "horse")}),
        ("people watch a game", {("people", "watch", "game")}),
        ("a bus stop", set()),
        ("a dog sitting next to a cat", {("dog", "sitting next to", "cat")}),
        ("a man and a woman holding a kite", {("man", "holding", "kite"), ("woman", "holding", "kite")}),
        ("a man with a hat and a bag", {("man", "with", "hat"), ("man", "with", "bag")}),
        ("a man holding a bat and wearing a cap", {("man", "holding", "bat"), ("man", "wearing", "cap")}),
        ("a man holding a bat and a boy holding a ball", {("man", "holding", "bat"), ("boy", "holding", "ball")}),
        ("a woman in a dress sitting on a chair", {("woman", "in", "dress"), ("woman", "sitting on", "chair")}),
        ("a table with a cat on it", {("table", "with", "cat"), ("cat", "on", "table")}),
        ("the man 's hat is on the table", {("man", "'s", "hat"), ("hat", "on", "table")}),
        ("a ball in a dog's mouth", {("ball", "in", "mouth"), ("dog", "'s", "mouth")}),
        ("the wheel of a car", {("car", "of", "wheel")}),
        ("a plate of food on a table", {("plate", "of", "food"), ("plate", "on", "table")}),
        ("a cart pulled by two horses", {("horses", "pulled by", "cart")}),
        ("a car parked by the house", {("car", "parked by", "house")}),
        ("a boy trying to catch a ball", {("boy", "catch", "ball")}),
        ("a car that is parked on the street", {("car", "parked on", "street")}),
        ("a knife is on top of a cutting board", {("knife", "on top of", "cutting board")}),
    ],
)
def test_relationships_are_the_words_between(caption, expected):
    assert links(caption) == expected


def test_verbs_have_their_base_form_too():
    (link,) = parse("a cat lying under a car").links
    assert (link.name, link.base) == ("lying under", "lie under")


def test_numbers_and_definite_things():
    two, dog = parse("two cats and the dog").mentions
    assert (two.number, two.plural, two.definite) == (2, True, False)
    assert (dog.number, dog.plural, dog.definite) == (None, False, True)


WORDS = st.sampled_from(
    "a the two dog dogs man red is has riding parked on of with and , . 's it that to light all next sitting by".split()
)


@given(st.lists(WORDS, max_size=14).map(" ".join) | st.text(string.printable, max_size=60))
def test_any_text_gives_a_phrase_made_of_its_words(caption):
    phrase = parse(caption)
    said = set(tokens(caption))
    for mention in phrase.mentions:
        assert mention.name
        assert {word for text in (mention.name, *mention.attributes) for word in text.split()} <= said
    for link in phrase.links:
        assert link.subject != link.object
        assert {link.subject, link.object} <= set(range(len(phrase.mentions)))
        assert set(link.name.split()) <= said
