"""Exporting a trained student from its run folder into the shapes that other programs load."""

from distill.exporters.export import Exported, export

__all__ = ["Exported", "export"]
