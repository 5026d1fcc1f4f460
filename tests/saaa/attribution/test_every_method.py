"""What holds for every method on every kind of network: batching, cleanliness, the caller's modes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import _len_torch_function_stack

from saaa.attribution import Attributed, attribute
from saaa.errors import OptionInvalid
from saaa.models.classifier import Classifier
from saaa.work import ExplainOptions
from tests.saaa.attribution.networks import OFFERED, Fails, make_inputs, network, state_of, two_regions

PAIRS = [(model, method) for model, methods in OFFERED.items() for method in methods]
TARGETS = ([1], [], [3, 0, 2], [2, 2], [0], [], [1, 3], [2])

every = pytest.mark.parametrize(("model", "method"), PAIRS)


def explain(classifier: Classifier, inputs: torch.Tensor, targets: Any, method: str) -> Attributed:
    options = ExplainOptions(method=method, steps=2, masks=4)
    return attribute(classifier, inputs, targets, options, regions=two_regions(classifier, len(inputs)))


@every
def test_batch_equals_one_by_one(model: str, method: str) -> None:
    """In double precision: how much single precision rounds in a batch and alone is a matter of the processor."""
    classifier = copy.deepcopy(network(model)).double()
    inputs = make_inputs(classifier, len(TARGETS)).double()
    together = explain(classifier, inputs, TARGETS, method)
    with torch.no_grad():
        probabilities = classifier(inputs).softmax(dim=1).numpy()
    np.testing.assert_allclose(together.probabilities, probabilities, rtol=1e-4, atol=1e-6)
    assert [len(maps) for maps in together.maps] == [max(1, len(wanted)) for wanted in TARGETS]
    largest = 0.0
    for i, wanted in enumerate(TARGETS):
        alone = explain(classifier, inputs[i : i + 1], [wanted], method)
        assert [m.target for m in alone.maps[0]] == (wanted or [int(probabilities[i].argmax())])
        for one, batched in zip(alone.maps[0], together.maps[i], strict=True):
            assert one.target == batched.target
            assert one.method == batched.method == method
            assert one.values.dtype == np.float32
            np.testing.assert_allclose(batched.values, one.values, rtol=0, atol=1e-6 * np.abs(one.values).max())
            largest = max(largest, float(np.abs(one.values).max()))
    assert largest > 0, "all maps are empty; the comparison says nothing"


@every
def test_nothing_is_left_behind(model: str, method: str) -> None:
    classifier = network(model)
    first = next(classifier.parameters())
    trainable = first.requires_grad
    classifier.train()
    first.requires_grad_(False)
    try:
        before = state_of(classifier)
        inputs = make_inputs(classifier, 2)
        explain(classifier, inputs, [[0], [1, 2]], method)
        assert state_of(classifier) == before
        assert not inputs.requires_grad
        with pytest.raises(OptionInvalid):
            explain(classifier, inputs, [[0], [99]], method)
        assert state_of(classifier) == before
        assert _len_torch_function_stack() == 0
    finally:
        classifier.eval()
        first.requires_grad_(trainable)


@every
@pytest.mark.parametrize("when", ["forward", "backward"])
def test_nothing_is_left_behind_by_a_failing_module(model: str, method: str, when: str) -> None:
    if when == "backward" and method in ("occlusion", "rise", "region_shapley"):
        when = "forward"  # these have no backward
    classifier = network(model)
    head: Any = classifier.net.get_classifier()

    def fail(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if when == "forward":
            raise RuntimeError("broken forward")
        failing: torch.Tensor = Fails.apply(output)
        return failing

    handle = head.register_forward_hook(fail)
    try:
        before = state_of(classifier)
        with pytest.raises(RuntimeError, match=f"broken {when}"):
            explain(classifier, make_inputs(classifier, 1), [[0]], method)
        assert state_of(classifier) == before
        assert _len_torch_function_stack() == 0
    finally:
        handle.remove()


@pytest.mark.parametrize(("model", "method"), [pair for pair in PAIRS if pair[0] in ("efficientnet", "vit_token")])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_caller_may_be_in_any_mode(model: str, method: str, mode: Callable[[], Any]) -> None:
    classifier = network(model)
    expected = explain(classifier, make_inputs(classifier, 1), [[0]], method).maps[0][0].values
    with mode():  # the inputs are made in it too
        found = explain(classifier, make_inputs(classifier, 1), [[0]], method).maps[0][0].values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
