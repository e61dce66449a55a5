"""HTML and SVG as nested calls, in which text is text: whatever is not a `Markup` is escaped.

    tag("p", "1 < 2 ", tag("b", "so")) == Markup("<p>1 &lt; 2 <b>so</b></p>")

A report shows what a policy wrote, and policies write anything: tags, control characters, text that runs backwards.
"""

import html
import unicodedata
from collections.abc import Iterable

EMPTY = {"meta", "br", "line", "polyline", "polygon", "path", "rect", "circle"}  # elements without content


class Markup(str):
    """Text that is HTML already."""


Child = str | float | None
Children = Iterable["Child | Children"]


def tag(name: str, /, *children: Child | Children, **attributes: str | float) -> Markup:
    """An element. `class_` is the attribute class, `stroke_width` is stroke-width."""
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items())
    if name in EMPTY:
        return Markup(f"<{name}{said}/>")
    return Markup(f"<{name}{said}>{joined(children)}</{name}>")


def joined(children: Children) -> Markup:
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, str | int | float):
            parts.append(escaped(child))
        else:
            parts.append(joined(child))
    return Markup("".join(parts))


def escaped(value: Child) -> str:
    return value if isinstance(value, Markup) else html.escape(visible(str(value)))


def visible(text: str) -> str:
    """What a browser would not show, or would obey, as its number: control characters, marks that turn text round,
    spaces of no width, halves of a surrogate pair. A wide gap of combining marks is cut."""
    shown = []
    marks = 0
    for character in text:
        category = "" if character < "\x7f" else unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or (character < " " and character not in "\n\t"):
            shown.append(f"\\u{ord(character):04x}")
        elif marks <= 4:  # more of them on one letter would paint over the rest of the page
            shown.append(character)
    return "".join(shown)
