"""Labels in any script are drawn in a font that has them, or somebody is told."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from facerwkv.media import fonts
from facerwkv.media.fonts import SANS, Writer, font_file


@pytest.fixture(autouse=True)
def afresh():
    clear = fonts.font_file.cache_clear
    clear()
    yield
    clear()


def test_latin_cyrillic_and_greek_are_in_dejavu_sans():
    pytest.importorskip("matplotlib")
    assert {font_file(character).rpartition("/")[2] for character in "aéßřЖюΩπ %"} == {SANS}


def test_without_it_pillow_s_own_font_and_what_is_installed(monkeypatch, caplog):
    sans, asked = font_file("a"), []
    font_file.cache_clear()
    monkeypatch.setattr(fonts, "_sans", lambda: None)
    monkeypatch.setattr(fonts, "_installed", lambda character: asked.append(character) or ["/gone.ttf", sans])
    assert [font_file("a"), font_file("Ж"), font_file("Ж")] == [None, sans, sans]
    assert asked == ["Ж"]
    assert [*map(font_file, "喜喜")] == [None, None]
    (warning,) = caplog.messages
    assert warning.startswith("No installed font has '喜', which is drawn as a box. Install one that does")


def test_a_line_of_two_fonts_is_as_long_as_its_parts_and_begins_and_ends_where_it_should(monkeypatch):
    sans = font_file("a")
    monkeypatch.setattr(fonts, "font_file", lambda character: None if character == "b" else sans)
    writer = Writer(20)
    assert writer.length("ab") == pytest.approx(writer.length("a") + writer.length("b"))
    for anchor, x in (("lm", 10), ("rm", 150)):
        image = Image.new("L", (200, 40))
        writer.draw(ImageDraw.Draw(image), (x, 20), "abba", "white", anchor)
        columns = np.flatnonzero(np.asarray(image).any(0))
        start = 10 if anchor == "lm" else 150 - writer.length("abba")
        assert columns[0] == pytest.approx(start, abs=3)
        assert columns[-1] == pytest.approx(start + writer.length("abba"), abs=3)
