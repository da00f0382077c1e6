"""HTML pages that need nothing else: templates, charts, text differences, and one guarded way to write them.

A page loads nothing from a network, and untrusted text on it can neither act nor hide.
"""

from distill.pages.environment import fragment, page_stream, render_page
from distill.pages.visible import visible
from distill.pages.write import check_page_target, write_page

__all__ = ["check_page_target", "fragment", "page_stream", "render_page", "visible", "write_page"]
