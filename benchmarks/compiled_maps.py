"""Maps by the compiled graph instead of torch, for the same judge: is a map still true once it is fast?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.quality import Case, Figures, Judge, Shares
from saaa.models.classifier import Classifier
from saaa.runtime.compiled import OpenVinoClassifier
from saaa.runtime.engine import has_bf16
from saaa.runtime.options import BF16, FP32, TORCH
from saaa.runtime.tracing import trace
from saaa.work import ExplainOptions, WorkItem


class CompiledMaps:
    """Takes the place of `quality.explain`.

    Args:
        classifier: what is judged; its graph is made once, that of any other network when it is asked about.
        precision: "fp32", or "bf16", which is only imitated where the processor has no units for it.
    """

    def __init__(self, classifier: Classifier, precision: str) -> None:
        self._precision = precision
        self._classifier = classifier
        self._runtime = self._compile(classifier)

    def __call__(self, classifier: nn.Module, cases: Sequence[Case], options: ExplainOptions) -> list[NDArray[Any]]:
        """One map a case."""
        assert isinstance(classifier, Classifier)
        runtime = self._runtime if classifier is self._classifier else self._compile(classifier)
        pixels = np.concatenate([_pixels(classifier, case) for case in cases])
        items = [WorkItem(targets=(case.target,)) for case in cases]
        return [entries[0].values for entries in runtime.explain(pixels, items, options).maps]

    def _compile(self, classifier: Classifier) -> OpenVinoClassifier:
        graph = trace(classifier)
        return OpenVinoClassifier(
            graph, default=graph.methods[0], precision=self._precision, threads=torch.get_num_threads()
        )


def beside_torch(
    judge: Judge, cases: Sequence[Case], referee: Sequence[Shares | None], randomised: int
) -> dict[str, Any]:
    """The default method's means by torch and by the graph in each precision, on the same cases."""
    options = ExplainOptions()
    judges = {TORCH: judge}
    for precision in (FP32, BF16):
        judges[f"openvino_{precision}"] = replace(judge, explain=CompiledMaps(judge.classifier, precision))
    found: dict[str, Any] = {"scenes": len(cases), "bf16_imitated": not has_bf16()}
    for name, own in judges.items():
        figures: Figures = own.measure(cases, referee, options)
        figures.extend(own.randomised(cases[:randomised], options))
        means = figures.means()
        found[name] = means | {"mprt": abs(means["mprt"])}
    return found


def side_by_side(found: Mapping[str, Any], names: Sequence[str]) -> str:
    """What `beside_torch` found, one row a figure."""
    columns = [name for name, means in found.items() if isinstance(means, Mapping)]
    title = f"\ndefault method, compiled, {found['scenes']} scenes{', bf16 imitated' if found['bf16_imitated'] else ''}"
    rows = [f"  {name:<24}" + "".join(f"{found[column][name]:16.4f}" for column in columns) for name in names]
    return "\n".join([title, " " * 26 + "".join(f"{name:>16}" for name in columns), *rows])


def _pixels(classifier: Classifier, case: Case) -> NDArray[np.uint8]:
    """(1, S, S, 3): what `preprocess` made the case of."""
    shown = (case.inputs * classifier.std + classifier.mean).round()
    made: NDArray[np.uint8] = shown.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    return made
