"""Pictures and pages of an analysis: heat-map overlays, the drawn scene graph, a self-contained HTML report.

Pillow, NumPy and the standard library only.
"""

from saaa.report.graph import draw_graph
from saaa.report.heatmap import draw_attribution
from saaa.report.report import ReportEntry, write_report

__all__ = ["ReportEntry", "draw_attribution", "draw_graph", "write_report"]
