"""The handler of EGDD archives.

REST: `curl -T photo.jpg host:8080/predictions/NAME` (or a multipart field, or JSON {"image": base64}) answers

    {"model": {"name", "version", "digest"},
     "predictions": [{"label", "probability"}, ...],                     the most probable first, at most 5
     "attributions": [{"target", "method", "grid", "region"}]}           for the most probable class

where "grid" is the map's rows and "region" is the [x, y, width, height] of the picture that it covers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from handlers.base import Form, Handler, fields, picture
from saaa.work import Work, WorkItem

TOP = 5


class EgddHandler(Handler):
    """Classifies and explains."""

    def respond(self, form: Form) -> dict[str, Any]:
        """Give the predictions, and the attribution of the first."""
        pixels, geometry = picture(fields(form)).fit(self.executor.info)
        result = self.run_one(pixels, Work.EXPLAIN, WorkItem())
        assert result.probabilities is not None
        classes = self.executor.info.classes
        best = np.argsort(-result.probabilities, kind="stable")[:TOP]
        return {
            "model": self.model(),
            "predictions": [{"label": classes[i], "probability": float(result.probabilities[i])} for i in best],
            "attributions": [
                {
                    "target": classes[m.target],
                    "method": m.method,
                    "grid": m.values.tolist(),
                    "region": [geometry.x, geometry.y, geometry.width, geometry.height],
                }
                for m in result.maps
            ],
        }
