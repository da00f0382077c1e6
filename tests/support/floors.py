"""The order of the rooms under `distill/`: the architecture test enforces it, docs/architecture.md shows it."""

from __future__ import annotations

# Each room may import from its own floor and from the floors before it, TYPE_CHECKING included.
FLOORS = [
    ["errors", "types", "progress", "lazy"],
    ["files"],
    ["protocols", "options", "settings", "specs", "hookspecs", "plugins"],
    ["transcripts"],
    ["runs", "pages"],
    ["models", "encode"],
    ["soft_labels"],
    ["dataset"],
    ["collection", "training", "comparison", "exporters", "chat"],
    ["recipes", "testing", "scaffold", "diagnosis", "view"],
    ["api"],
    ["cli"],
]
