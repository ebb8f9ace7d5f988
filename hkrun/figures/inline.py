"""Figures as elements of one HTML page: in its colours, with tooltips, without inline styles."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from hkrun.figures.palette import PALETTE

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_VARIABLES: Mapping[str, str] = MappingProxyType(
    {paint.light: f"var(--{name})" for name, paint in PALETTE.items()}
)
_COLOR = re.compile(r"^#[0-9a-f]{6}$")
_COLORED = ("fill", "stroke")
_REFERENCE = re.compile(r"(?<=url\(#)[^)]+")  # to a clip path or a hatch
# Between a path's letters and its numbers there need be no space.
_SPACE = re.compile(r"\s*([A-Za-z])\s*")
_GLYPH = "DejaVu"  # what the ids of letters begin with; one id is one shape in all figures
_MARKS = (f"{_SVG}path", f"{_SVG}use")
# How Matplotlib's own style element, which would reach all of the page, begins every figure.
_ROOT_STYLE = {"stroke-linejoin": "round", "stroke-linecap": "butt"}


class InlineFigures:
    """The figures of one page.

    Attributes:
        letters: Elements of the letters that they are written with, by their ids.

    Their letters are shared, no id occurs twice, and colours are the variables of `PALETTE`, which the page's
    style defines. There is no `style` attribute or element, so that a page may forbid both.
    """

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}
        self._names: set[str] = set()

    def add(
        self, name: str, svg: bytes, *, notes: Mapping[str, Sequence[str]], attributes: Mapping[str, str]
    ) -> str:
        """A figure as an element.

        Args:
            name: What its ids begin with; of this figure alone.
            svg: As `encode` gives it.
            notes: `Drawing.notes`; each becomes the title of a mark.
            attributes: Of the element, such as `class`.

        Raises:
            ValueError: The name was used, there is an image, a colour is not in the palette, or a mark has
                not as many parts as notes.
        """
        if name in self._names:
            raise ValueError(f"two figures are called {name}")
        self._names.add(name)
        figure = ElementTree.fromstring(svg)  # noqa: S314
        if figure.find(f".//{_SVG}image") is not None:
            raise ValueError(f"{name}: an image in a figure has the colours of one palette alone")
        for gid, texts in notes.items():
            group = figure.find(f".//{_SVG}g[@id='{gid}']")
            if group is not None:  # what lies outside of its axes is not drawn
                _explain(group, texts)
        self._take_definitions(figure)
        root = ElementTree.Element("svg", {"viewBox": figure.attrib["viewBox"], **_ROOT_STYLE, **attributes})
        root.extend(child for child in figure if child.tag in (f"{_SVG}g", f"{_SVG}defs"))
        for element in root.iter():
            _convert(element)
        _rename(root, name)
        return _write(root)

    def _take_definitions(self, figure: ElementTree.Element) -> None:
        """Takes the letters out, and the style that would reach all of the page."""
        for parent in list(figure.iter()):
            for definitions in parent.findall(f"{_SVG}defs"):
                for glyph in definitions.findall(f"{_SVG}path"):
                    if glyph.get("id", "").startswith(_GLYPH):
                        definitions.remove(glyph)
                        _convert(glyph)
                        self.letters.setdefault(glyph.attrib["id"], _write(glyph))
                for style in definitions.findall(f"{_SVG}style"):
                    definitions.remove(style)
                if not len(definitions):
                    parent.remove(definitions)


def write_letters(letters: Mapping[str, str]) -> str:
    """The element that holds the letters of figures; it must stand on their page, but shows nothing."""
    start = '<svg width="0" height="0" aria-hidden="true" class="glyphs">'
    return f"{start}{''.join(letters[key] for key in sorted(letters))}</svg>"


def _explain(group: ElementTree.Element, notes: Sequence[str]) -> None:
    """Puts titles into a group of marks: one into the group, or one into each mark."""
    marks = [mark for mark in _find_marks(group) if mark.get("id") is None]
    if len(notes) == 1:
        group.set("class", "mark")
        _add_title(group, notes[0])
        for mark in marks:
            if mark.tag == f"{_SVG}path" and "fill: none" in mark.get("style", ""):
                # A line is too thin to point at.
                hit = ElementTree.SubElement(group, mark.tag, {"d": mark.attrib["d"], "class": "hit"})
                hit.set("fill", "none")
        return
    points = [mark for mark in marks if mark.tag == f"{_SVG}use"] or marks
    if len(points) != len(notes):
        raise ValueError(f"{len(notes)} notes on {len(points)} marks: {notes[0]}")
    for point, note in zip(points, notes, strict=True):
        point.set("class", "mark")
        _add_title(point, note)


def _find_marks(group: ElementTree.Element) -> Iterable[ElementTree.Element]:
    """What is drawn in a group, without what it defines."""
    for child in group:
        if child.tag in _MARKS:
            yield child
        elif child.tag != f"{_SVG}defs":
            yield from _find_marks(child)


def _add_title(element: ElementTree.Element, text: str) -> None:
    title = ElementTree.Element(f"{_SVG}title")
    title.text = text
    element.insert(0, title)


def _convert(element: ElementTree.Element) -> None:
    """Styles become attributes, colours variables, and paths short."""
    for declaration in filter(None, element.attrib.pop("style", "").split(";")):
        key, _, value = declaration.partition(":")
        element.set(key.strip(), value.strip())
    for key in _COLORED:
        if key in element.attrib:
            element.set(key, _COLOR.sub(_find_variable, element.attrib[key]))
    if _HREF in element.attrib:
        element.set("href", element.attrib.pop(_HREF))
    if "d" in element.attrib:
        element.set("d", _SPACE.sub(r"\1", element.attrib["d"]))
    element.text = element.text if element.tag == f"{_SVG}title" else None
    element.tail = None
    element.tag = element.tag.removeprefix(_SVG)


def _find_variable(color: re.Match[str]) -> str:
    try:
        return _VARIABLES[color[0]]
    except KeyError:
        raise ValueError(f"the colour {color[0]} is not in the palette of hkrun/figures/palette.py") from None


def _rename(figure: ElementTree.Element, name: str) -> None:
    """Gives ids that are referred to the figure's name, and takes the others away."""
    used = {
        reference
        for element in figure.iter()
        for key, value in element.items()
        for reference in (_REFERENCE.findall(value) if key != "href" else [value.removeprefix("#")])
    }
    for element in figure.iter():
        if (identity := element.attrib.pop("id", None)) in used:
            element.set("id", f"{name}-{identity}")
        for key, value in element.items():
            if key != "href":
                element.set(key, _REFERENCE.sub(rf"{name}-\g<0>", value))
            elif not value.startswith(f"#{_GLYPH}"):
                element.set(key, f"#{name}-{value.removeprefix('#')}")


def _write(element: ElementTree.Element) -> str:
    return ElementTree.tostring(element, encoding="unicode")
