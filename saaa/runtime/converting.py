"""From what torch recorded to OpenVINO's two files."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from saaa.errors import NotTraceable
from saaa.runtime.graph import Graph
from saaa.runtime.reasons import reason

Shape = Sequence[int]
"""-1 where a size is free."""
_log = logging.getLogger(__name__)


@contextmanager
def one_graph(what: str) -> Iterator[None]:
    """While torch records and openvino converts.

    Autograd counts devices once, at a process's first backward, and starts a thread for each that is no CPU; a process
    that has such threads cannot fork one that differentiates. Recording pretends a CUDA device: count before.

    Args:
        what: is made one graph.

    Raises:
        NotTraceable: whatever else they raise, in one line.
    """
    with torch.enable_grad():
        torch.autograd.backward(torch.ones((), requires_grad=True))
    try:
        yield
    except NotTraceable:
        raise
    except Exception as error:  # torch and openvino raise what they like
        _log.debug("tracing failed", exc_info=error)
        raise NotTraceable(f"{what} cannot be made one graph: {reason(error)}") from error


@dataclass(frozen=True, kw_only=True)
class Part:
    """A converted function."""

    model: Any
    """OpenVINO's."""
    inputs: Sequence[str]
    outputs: Sequence[str]


def convert(program: GraphModule | ExportedProgram, inputs: Mapping[str, Shape], outputs: Sequence[str]) -> Part:
    """Convert.

    Args:
        program: operations that are taken as they are, for fixed sizes; or an exported program, for free ones too.
        inputs: name and shape of each.
        outputs: name of each.

    Raises:
        NotTraceable: openvino is missing.
        Exception: whatever openvino raises at an operation that it cannot convert; see `saaa.runtime.reasons`.
    """
    try:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
    except ImportError as error:
        raise NotTraceable(f"A graph is made by openvino, which is not usable here ({error}); install it.") from error
    if isinstance(program, GraphModule):
        decoder = TorchFXPythonDecoder(program)
    else:
        with _unheard():
            decoder = TorchFXPythonDecoder.from_exported_program(program)
    # Not openvino.convert_model: it may tell its makers that it was called, and would record all of it twice more.
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))  # the decoder must outlive it
    shapes = {
        port: openvino.PartialShape(list(shape)) for port, shape in zip(model.inputs, inputs.values(), strict=True)
    }
    model.reshape(shapes)
    return Part(model=model, inputs=tuple(inputs), outputs=tuple(outputs))


def pack(name: str, parts: Sequence[Part], methods: Sequence[str] = ()) -> Graph:
    """Write parts that share nothing as one graph.

    Args:
        name: the graph's.
        parts: at least 1; no two have an input or an output of the same name.
        methods: see `Graph`.
    """
    import openvino

    inputs = [port for part in parts for port in part.model.inputs]
    outputs = [port for part in parts for port in part.model.outputs]
    model = openvino.Model([port.get_node() for port in outputs], [port.get_node() for port in inputs], name)
    names = [own for part in parts for own in part.inputs], [own for part in parts for own in part.outputs]
    _rename(model, *names)
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder, "graph.xml"), Path(folder, "graph.bin")
        openvino.serialize(model, xml, weights)
        return Graph(xml=xml.read_bytes(), weights=weights.read_bytes(), methods=tuple(methods))


@contextmanager
def _unheard() -> Iterator[None]:
    """Drop what openvino tells the root logger of operations that this torch does not have."""

    def drop(record: logging.LogRecord) -> bool:
        return "not found in decomp table" not in record.msg

    root = logging.getLogger()
    root.addFilter(drop)
    try:
        yield
    finally:
        root.removeFilter(drop)


def _rename(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name what goes in and comes out, and number everything else, so that equal graphs are equal bytes."""
    for number, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(str(number))
        for port in operation.outputs():
            port.get_tensor().set_names(set())
    for port, name in zip(model.inputs, inputs, strict=True):
        port.get_node().set_friendly_name(name)
        port.get_tensor().set_names({name})
    for port, name in zip(model.outputs, outputs, strict=True):
        port.get_node().set_friendly_name(name)
        port.get_tensor().add_names({name})
