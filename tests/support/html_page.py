"""Reading a page that distill wrote: its elements and its text, and what holds for every such page."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

VOID = {"meta", "br", "wbr", "input"}
_ACTIVE = {"img", "a", "link", "iframe", "object", "form"}


class Page(HTMLParser):
    """A page that is whole, runs nothing but the script that its policy names, and asks nothing of anybody.

    Attributes:
        tags: the elements that there are.
        attributes: all names of attributes.
        text: what is read.
    """

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.open, self.text = set(), set(), [], ""
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"
        assert not _ACTIVE & self.tags
        assert not {"src", "href"} & self.attributes and not any(name.startswith("on") for name in self.attributes)
        allowed = re.search(r"script-src 'sha256-([^']+)'", text)
        scripts = re.findall(r"(?is)<script[^>]*>(.*?)</script", text)
        assert all(allowed and b64encode(sha256(one.encode()).digest()).decode() == allowed[1] for one in scripts)
        assert "http-equiv" in self.attributes and "url(" not in text and "@import" not in text

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> does not match"

    def handle_data(self, data):
        if "script" not in self.open:
            self.text += data
