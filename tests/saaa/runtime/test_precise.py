"""What is marked to stay in single precision: all but products with wide constant matrices."""

from __future__ import annotations

from xml.etree import ElementTree

from saaa.runtime.graph import Graph
from saaa.runtime.precise import keep_precise


def layer(number: int, kind: str, *sizes: int, inside: str = "") -> str:
    dims = "".join(f"<dim>{size}</dim>" for size in sizes)
    output = f'<output><port id="9">{dims}</port></output>' if sizes else ""
    return f'<layer id="{number}" name="{number}" type="{kind}">{inside}{output}</layer>'


def edge(source: int, target: int, port: int) -> str:
    return f'<edge from-layer="{source}" from-port="9" to-layer="{target}" to-port="{port}"/>'


LAYERS = (
    layer(0, "Parameter", -1, 4),
    layer(1, "Const", 8, 4),
    layer(2, "MatMul", -1, 8),
    layer(3, "Const", 7, 8),
    layer(4, "MatMul", -1, 7),
    layer(5, "MatMul", 4, 99),
    layer(6, "Sigmoid", -1, 8, inside='<rt_info><attribute name="fused_names" version="0"/></rt_info>'),
    layer(7, "MatMul", 5, -1),
    layer(8, "Result"),
)
EDGES = (edge(0, 2, 0), edge(1, 2, 1), edge(2, 4, 0), edge(3, 4, 1), edge(0, 5, 0), edge(4, 5, 1), edge(3, 7, 0))


def test_only_products_with_wide_constants_are_left_unmarked() -> None:
    xml = f"<net><layers>{''.join(LAYERS)}</layers><edges>{''.join(EDGES)}</edges></net>"
    graph = keep_precise(Graph(xml=xml.encode(), weights=b"w", methods=("lrp",)), columns=8)
    assert (graph.weights, graph.methods) == (b"w", ("lrp",))
    root = ElementTree.fromstring(graph.xml)
    marked = {
        found.attrib["id"]
        for found in root.iterfind("layers/layer")
        if any(mark.attrib["name"] == "precise" for mark in found.iterfind("rt_info/attribute"))
    }
    # 4 is narrow, 5 multiplies what was computed, 7 has no known width; 6 is no product, and keeps what it had.
    assert marked == {"4", "5", "6", "7"}
    assert len(root.findall("layers/layer[@id='6']/rt_info")) == 1
    assert len(root.findall("layers/layer[@id='6']/rt_info/attribute")) == 2
