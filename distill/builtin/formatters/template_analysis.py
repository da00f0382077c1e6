"""What a chat template does with messages' texts, and which variables it reads: found in its syntax tree.

A template is a program: it may branch on a message's text (Qwen3's looks for `</think>`), and then every conversation
has to be rendered with Jinja. Most templates only put texts between markers, trimmed at most; for those, one rendering
serves all conversations with the same roles. The analysis is conservative: a use that is not known to be harmless makes
the template one that has to be rendered.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jinja2 import nodes

# The parts of a message that belong to a conversation's shape (`_shape` in `chat_template`); the rest is its text.
_SHAPE = {"role", "name", "tool_call_id", "tool_calls"}
_TYPE_TESTS = {"defined", "undefined", "none", "string", "mapping", "sequence", "iterable"}
_TRIMS = {"strip", "lstrip", "rstrip"}
_ITEMS = {"first", "last", "list", "reverse"}


# What every template is given; all other names that it reads are variables.
_GIVEN = {
    "messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now",
    *(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")), "additional_special_tokens",
}  # fmt: skip


@lru_cache(16)
def only_copies(template: str) -> bool:
    """Whether a Jinja chat template does nothing with messages' texts but write them, trimmed or not."""
    tree = _parse(template)
    return tree is not None and _Reading(tree).harmless()


@lru_cache(16)
def variables_of(template: str) -> frozenset[str]:
    """The variables that a Jinja chat template reads, such as `enable_thinking` or `date_string`."""
    from jinja2 import meta

    tree = _parse(template)
    return frozenset() if tree is None else frozenset(meta.find_undeclared_variables(tree)) - _GIVEN


def _parse(template: str) -> nodes.Template | None:
    """A template's syntax tree; None where it is none."""
    import jinja2

    # transformers' own tag; it changes nothing in what is rendered.
    template = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)
    try:
        return jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except jinja2.TemplateSyntaxError:
        return None


class _Reading:
    """Follows messages and their texts through a syntax tree by their names."""

    def __init__(self, tree: nodes.Template):
        from jinja2 import nodes

        self._n = nodes
        self._messages: set[str] = {"messages"}
        self._texts: set[str] = set()
        self._parents = {child: node for node in _walk(tree) for child in node.iter_child_nodes()}
        self._tree = tree

    def harmless(self) -> bool:
        n = self._n
        opaque = (n.Macro, n.CallBlock, n.FilterBlock, n.AssignBlock, n.Block, n.Extends, n.Include, n.ImportedName)
        if any(isinstance(node, (*opaque, n.Import, n.FromImport)) for node in _walk(self._tree)):
            return False
        known = -1
        while known != len(self._messages) + len(self._texts):  # until no further name holds a message or a text
            known = len(self._messages) + len(self._texts)
            for node in _walk(self._tree):
                if isinstance(node, n.Name) and node.ctx == "load":
                    if node.name in self._messages and not self._message(node):
                        return False
                    if node.name in self._texts and not self._text(node):
                        return False
                if self._neighbour(node) and not self._message(node):
                    return False
        return True

    def _neighbour(self, node: nodes.Node) -> bool:
        """`loop.previtem` and `loop.nextitem` are messages too."""
        n = self._n
        return isinstance(node, n.Getattr) and isinstance(node.node, n.Name) and node.attr in ("previtem", "nextitem")

    def _message(self, node: nodes.Node) -> bool:
        """Whether a node with messages is used harmlessly: to loop over them, or to read what belongs to the shape."""
        n, parent = self._n, self._parents[node]
        if isinstance(parent, (n.Getattr, n.Getitem)) and parent.node is node:
            key = parent.attr if isinstance(parent, n.Getattr) else getattr(parent.arg, "value", None)
            if isinstance(key, str):
                return key in _SHAPE or self._text(parent)
            return self._message(parent)  # messages[0], messages[1:], messages[loop.index0 - 1]
        if isinstance(parent, n.For) and parent.iter is node:
            return not parent.recursive and self._name(parent.target, self._messages)
        if isinstance(parent, n.Filter) and parent.node is node:
            return parent.name in ("length", "count") or (parent.name in _ITEMS and self._message(parent))
        if isinstance(parent, n.Operand):
            compare = self._parents[parent]
            constant = isinstance(compare, n.Compare) and isinstance(compare.expr, n.Const)
            return parent.op in ("in", "notin") and constant  # 'tool_calls' in message
        return self._either(node, self._message, self._messages) or isinstance(parent, (n.If, n.And, n.Or, n.Not))

    def _text(self, node: nodes.Node) -> bool:
        """Whether a text is used harmlessly: written, joined, trimmed, or tested for its type."""
        n, parent = self._n, self._parents[node]
        if isinstance(parent, n.Output):
            return True
        if isinstance(parent, (n.Add, n.Concat)):
            return self._text(parent)
        if isinstance(parent, n.Filter) and parent.node is node:
            return parent.name == "trim" and not parent.args and not parent.kwargs and self._text(parent)
        if isinstance(parent, n.Getattr) and parent.attr in _TRIMS:
            call = self._parents[parent]
            return (
                isinstance(call, n.Call) and call.node is parent and not (call.args or call.kwargs) and self._text(call)
            )
        return self._either(node, self._text, self._texts)

    def _either(self, node: nodes.Node, follow: Callable[[nodes.Node], bool], names: set[str]) -> bool:
        """Harmless uses of both messages and texts: testing their type, choosing them, naming them."""
        n, parent = self._n, self._parents[node]
        if isinstance(parent, n.Test):
            return parent.node is node and parent.name in _TYPE_TESTS
        if isinstance(parent, n.CondExpr):
            return parent.test is not node and follow(parent)
        return isinstance(parent, n.Assign) and self._name(parent.target, names)

    def _name(self, target: nodes.Node, names: set[str]) -> bool:
        if not isinstance(target, self._n.Name):  # a namespace's attribute, or several names at once
            return False
        names.add(target.name)
        return True


def _walk(tree: nodes.Node) -> Iterator[nodes.Node]:
    yield tree
    for child in tree.iter_child_nodes():
        yield from _walk(child)
