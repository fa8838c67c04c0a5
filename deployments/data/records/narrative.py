"""The XHTML of a narrative: FHIR's subset, well-formed, without anything that runs or loads.

http://hl7.org/fhir/R4/narrative.html (txt-1, txt-2)
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

XHTML = "{http://www.w3.org/1999/xhtml}"
MAX_DEPTH = 50

_TAGS = frozenset(
    (
        *("a", "abbr", "acronym", "b", "big", "blockquote", "br", "caption", "cite", "code", "col"),
        *("colgroup", "dd", "dfn", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4", "h5", "h6"),
        *("hr", "i", "img", "li", "ol", "p", "pre", "q", "samp", "small", "span", "strong", "sub"),
        *("sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "tt", "ul", "var"),
    )
)
_ATTRIBUTES = frozenset(
    (
        *("abbr", "align", "alt", "axis", "border", "cellpadding", "cellspacing", "char"),
        *("charoff", "cite", "class", "colspan", "dir", "frame", "headers", "height", "href"),
        *("id", "lang", "name", "nowrap", "rowspan", "rules", "scope", "span", "src", "start"),
        *("style", "summary", "title", "type", "valign", "value", "width"),
        "{http://www.w3.org/XML/1998/namespace}lang",
    )
)
# Links may leave the document; images must be inside the resource.
_LINK = re.compile(r"(https?://|mailto:|tel:|#)[^\s]*", re.IGNORECASE)
_IMAGE = re.compile(r"#[^\s]*|data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*")
_STYLE = re.compile(r"(?!.*(url|expression|import|[\\@<]))[^{}]*", re.IGNORECASE | re.DOTALL)


def is_narrative(text: str) -> bool:
    """Whether `text` is a `div` of the allowed tags and attributes that says something."""
    if "<!" in text or "<?" in text or not text.lstrip().startswith("<div"):
        # No document type, so no entities; no processing instructions.
        return False
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError):
        return False
    if root.tag != f"{XHTML}div" or not _says_something(root):
        return False
    open_nodes = [(root, 1)]
    while open_nodes:
        node, depth = open_nodes.pop()
        if depth > MAX_DEPTH or not _allowed(node):
            return False
        open_nodes.extend((child, depth + 1) for child in node)
    return True


def _says_something(root: ElementTree.Element) -> bool:
    return any(text.strip() for text in root.itertext()) or root.find(f".//{XHTML}img") is not None


def _allowed(node: ElementTree.Element) -> bool:
    tag = str(node.tag)
    if not tag.startswith(XHTML) or tag.removeprefix(XHTML) not in _TAGS:
        return False
    return all(
        name in _ATTRIBUTES
        and (name not in ("href", "cite") or _LINK.fullmatch(value) is not None)
        and (name != "src" or _IMAGE.fullmatch(value) is not None)
        and (name != "style" or _STYLE.fullmatch(value) is not None)
        for name, value in node.attrib.items()
    )
