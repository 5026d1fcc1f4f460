"""The human loop: annotation tasks out of an attributed data set, people's answers in.

Importing this package loads the options only.
"""

from __future__ import annotations

from typing import Any

from training.annotation.config import ExportConfig, ImportConfig, ServeConfig

__all__ = ["ExportConfig", "ImportConfig", "ServeConfig", "export_tasks", "import_answers", "serve_tasks"]


def export_tasks(config: ExportConfig) -> dict[str, Any]:
    """Make annotation tasks; see `training.annotation.export.export_tasks`."""
    from training.annotation.export import export_tasks as export_

    return export_(config)


def import_answers(config: ImportConfig) -> dict[str, Any]:
    """Read people's answers; see `training.annotation.importing.import_answers`."""
    from training.annotation.importing import import_answers as import_

    return import_(config)


def serve_tasks(config: ServeConfig) -> dict[str, Any]:
    """Have tasks answered in Label Studio; see `training.annotation.serve.serve_tasks`."""
    from training.annotation.serve import serve_tasks as serve_

    return serve_(config)
