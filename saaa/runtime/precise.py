"""Say in a graph what stays in single precision where bf16 is asked for.

OpenVINO computes all of a graph in bf16 then. What decides a caption word are small differences between large sums, and
a memory that is written again at each step: rounded there, one caption in twenty comes out differently; rounded only in
the products with large matrices, whose sums are kept in single precision, one in a hundred. These products are what
takes the time.
"""

from __future__ import annotations

from xml.etree import ElementTree

from saaa.runtime.graph import Graph

_DATA = ("Parameter", "Const", "Result")


def keep_precise(graph: Graph, *, columns: int) -> Graph:
    """The same graph, in which only products with constant matrices of at least so many columns may be in bf16."""
    root = ElementTree.fromstring(graph.xml)
    layers = {layer.attrib["id"]: layer for layer in root.iterfind("layers/layer")}
    constant = {
        edge.attrib["to-layer"]
        for edge in root.iterfind("edges/edge")
        if layers[edge.attrib["from-layer"]].attrib["type"] == "Const"
    }
    for number, layer in layers.items():
        kind = layer.attrib["type"]
        if kind in _DATA or (kind == "MatMul" and number in constant and _columns(layer) >= columns):
            continue
        info = layer.find("rt_info")
        if info is None:
            info = ElementTree.SubElement(layer, "rt_info")
        ElementTree.SubElement(info, "attribute", {"name": "precise", "version": "0"})
    return Graph(xml=ElementTree.tostring(root), weights=graph.weights, methods=graph.methods)


def _columns(product: ElementTree.Element) -> int:
    """Of what it gives; -1 where that is free."""
    return int(product.findtext("output/port/dim[last()]", default="-1"))
