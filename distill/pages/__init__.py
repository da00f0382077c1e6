"""HTML pages: templates, charts, text differences."""
