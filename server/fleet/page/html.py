"""Elements of a page: what is put into them is text, and escaped, unless it is an element."""

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})
ALONE = frozenset({"circle", "line", "path", "polygon", "polyline", "rect"})
"""Of SVG: without content they end themselves."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | None | Iterable[Child]"
Value: TypeAlias = "str | int | float | bool | None"


def make(tag: str, *children: Child, **attributes: Value) -> Html:
    """Return an element.

    A trailing underscore of an attribute's name falls away, others become hyphens; ``True`` is an
    attribute without a value, ``False`` and ``None`` are none.

    >>> make("a", "1 < 2", href="/?a=1&b=2", data_live="x", hidden=True, class_=None)
    '<a href="/?a=1&amp;b=2" data-live="x" hidden>1 &lt; 2</a>'
    >>> make("p", [make("b", "x"), None, " y"])
    '<p><b>x</b> y</p>'
    >>> make("path", d="M0 0")
    '<path d="M0 0"/>'
    """
    said = []
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if value is True:
            said.append(f" {name}")
        elif value is not None and value is not False:
            said.append(f' {name}="{escape(str(value))}"')
    head = f"<{tag}{''.join(said)}"
    if tag in VOID:
        return Html(f"{head}>")
    if tag in ALONE and not children:
        return Html(f"{head}/>")
    return Html(f"{head}>{join(children)}</{tag}>")


def join(children: Child) -> Html:
    """Return what stands one behind the other, escaped.

    >>> join(["a&b", 3, None])
    'a&amp;b3'
    """
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str | int | float):
        return Html(escape(str(children)))
    return Html("".join(join(child) for child in children))
