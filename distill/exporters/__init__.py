"""A trained student, out of its run folder, in the shapes that others load."""

from distill.exporters.export import Exported, export_gguf, export_merged, export_ollama

__all__ = ["Exported", "export_gguf", "export_merged", "export_ollama"]
