"""Output of workers that aren't trusted shows text, colours and still pictures, and does nothing."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import pytest

from p2p_ipython.client.display import AT_END, MAX_SOURCE, VALUE, harmless

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes = b"", *, checksum: int | None = None) -> bytes:
    right = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", right if checksum is None else checksum)


def header(width: int = 2, height: int = 1, rest: bytes = b"\x08\x02\x00\x00\x00") -> bytes:
    return chunk(b"IHDR", struct.pack(">II", width, height) + rest)


POINTS = chunk(b"IDAT", zlib.compress(bytes(7)))
END = chunk(b"IEND")
PNG = SIGNATURE + header() + POINTS + END


def frame(width: int = 2, height: int = 1, marker: int = 0xC0) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9)


SCAN = b"\xff\xda\x00\x0c" + bytes(10) + b"points\xff\xd9"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(9) + b"\xff\xff\xdb\x00\x03x" + frame() + SCAN


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def displayed(data: Any, *, kind: str = "display_data", worker: str = "bob", **content: Any) -> dict[str, Any]:
    message = harmless({"kind": kind, "content": {"data": data, **content}}, worker)
    assert message is not None
    assert message.keys() == {"kind", "content"}
    assert message["content"].keys() == {"data", "metadata", "transient"}
    return message["content"]  # type: ignore[no-any-return]


def streamed(words: Any) -> str:
    message = harmless({"kind": "stream", "name": "stdout", "text": words}, "bob")
    assert message is not None
    return message["text"]  # type: ignore[no-any-return]


# --- text -------------------------------------------------------------------------------------------------------------


def test_text_colours_and_progress_bars_are_shown_as_they_are() -> None:
    words = "é 10%\r20%\b\t\x1b[1;31mred\x1b[0m \x1b[38:2:1:2:3mand\x1b[m\n"
    assert harmless({"kind": "stream", "name": "stderr", "text": words}, "bob") == {
        "kind": "stream",
        "name": "stderr",
        "text": words,
    }


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]52;c;ZXZpbA==\x1b\\x", "x"),
        ("\x1b]8;;http://evil\x07click\x1b]8;;\x07", "click"),
        ("\x1b[2J\x1b[H\x1b[3Ax", "x"),
        ("\x1b[?1049hx\x1bcx", "xcx"),
        ("\x1bP+q544e\x1b\\x", "x"),
        ("\x1b\x1b[2J[2Jx", "[2Jx"),
        ("\x1b[3\x1b[2J1mx", "[31mx"),
        ("\x9b2Jx\x90y\x9c", "2Jxy"),
        ("\x1b]never ended", "]never ended"),
        ("\x00\x07\x7f\x0c\x0bx", "x"),
        ("\x1b[" + "1;" * 100 + "mx", "[" + "1;" * 100 + "mx"),
    ],
)
def test_what_would_steer_a_terminal_is_taken_out(words: str, left: str) -> None:
    assert streamed(words) == left


def test_taking_it_out_takes_no_quadratic_time() -> None:
    for words in ("\x1b]" * 500_000, "\x1b[" * 500_000, "\x1b]" + "x" * 1_000_000, "\x1b[0" * 300_000):
        assert "\x1b" not in streamed(words)


@pytest.mark.parametrize(
    "message",
    [
        {"kind": "comm_open", "content": {}},
        {"kind": "display_data"},
        {"kind": "display_data", "content": []},
        {"kind": "execute_result", "content": {"data": {}}},
        {"kind": None},
        {},
    ],
)
def test_what_is_no_output_is_dropped(message: dict[str, Any]) -> None:
    assert harmless(message, "bob") is None


def test_a_message_of_the_wrong_parts_shows_nothing() -> None:
    assert streamed(["x"]) == ""
    assert displayed(["x"], metadata=3, transient="x") == {"data": {"text/plain": ""}, "metadata": {}, "transient": {}}
    assert displayed({"text/plain": {"x": 1}})["data"] == {"text/plain": ""}


def test_clearing_passes_and_says_nothing_else() -> None:
    message = {"kind": "clear_output", "content": {"wait": 1, "x": 2}}
    assert harmless(message, "bob") == {"kind": "clear_output", "content": {"wait": False}}
    message = {"kind": "clear_output", "content": {"wait": True}}
    assert harmless(message, "bob") == message


# --- displays ---------------------------------------------------------------------------------------------------------


def test_html_is_left_out_and_that_is_said_once() -> None:
    data = {"text/html": "<script>evil()</script>", "text/plain": "  a\n0 1", "text/latex": "$x$"}
    assert displayed(data)["data"] == {
        "text/plain": "  a\n0 1\n(HTML, LaTeX from bob is shown as text: %p2p_trust bob)",
    }


@pytest.mark.parametrize(
    "kind", ["text/html", "text/markdown", "text/latex", "image/svg+xml", "application/javascript", "application/json"]
)
def test_without_plain_text_the_source_is_shown_as_text_and_cut(kind: str) -> None:
    data = displayed({kind: "<b>\x1b[2J" + "x" * 3 * MAX_SOURCE})["data"]
    assert data.keys() == {"text/plain"}
    assert data["text/plain"].startswith("<b>xxx")
    assert len(data["text/plain"]) < MAX_SOURCE + 200
    assert data["text/plain"].endswith("%p2p_trust bob)")


def test_a_kind_that_nobody_knows_is_named_without_its_tricks() -> None:
    data = displayed({"application/\x1b[2Jx\u202e" + "y" * 1000: "evil", "text/plain": "fine"})["data"]
    assert data.keys() == {"text/plain"}
    assert "\x1b" not in data["text/plain"]
    assert "\u202e" not in data["text/plain"]
    assert len(data["text/plain"]) < 300
    assert len(displayed({f"application/{each}": "" for each in range(10_000)})["data"]["text/plain"]) < 500


def test_the_name_of_the_worker_is_cleaned() -> None:
    shown = displayed({"text/html": "x"}, worker="bob\x1b[2J\n\u202eevil" + "x" * 1000)["data"]["text/plain"]
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert shown.count("\n") == 1
    assert len(shown) < 400


def test_only_sizes_and_an_identifier_of_the_workers_own_are_kept_of_the_rest() -> None:
    content = displayed(
        {"image/png": text(PNG), "text/plain": "x"},
        metadata={"image/png": {"width": 100, "height": True, "unconfined": True}, "isolated": True},
        transient={"display_id": "progress\x1b", "more": 1},
    )
    assert content["metadata"] == {"image/png": {"width": 100}}
    assert content["transient"] == {"display_id": "bob: progress"}
    for size in (-1, 10**9, "100%", 1.5):
        content = displayed({"image/png": text(PNG)}, metadata={"image/png": {"width": size}})
        assert content["metadata"] == {}


def test_an_update_is_of_a_display_that_has_a_name() -> None:
    assert harmless({"kind": "update_display_data", "content": {"data": {"text/plain": "x"}}}, "bob") is None
    content = displayed({"text/plain": "x"}, kind="update_display_data", transient={"display_id": "a"})
    assert content["transient"] == {"display_id": "bob: a"}


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_are_shown_with_exactly_the_bytes_that_were_looked_at() -> None:
    broken = "\n".join(text(PNG)[start : start + 20] for start in range(0, len(text(PNG)), 20))
    assert displayed({"image/png": broken})["data"] == {"text/plain": "", "image/png": text(PNG)}
    assert displayed({"image/jpeg": text(JPEG)})["data"]["image/jpeg"] == text(JPEG)


def test_pictures_of_real_programs_are_shown() -> None:
    image = pytest.importorskip("PIL.Image")
    for kind, options in (
        ("png", {}),
        ("jpeg", {"progressive": True}),
        ("jpeg", {"exif": b"Exif\0\0II*\0" + bytes(8)}),
    ):
        made = io.BytesIO()
        image.new("RGB", (300, 200), (1, 2, 3)).save(made, kind, **options)
        assert displayed({f"image/{kind}": text(made.getvalue())})["data"].keys() == {"text/plain", f"image/{kind}"}


BAD: dict[str, tuple[str, Any]] = {
    "no base64": ("png", "<svg onload=evil()>"),
    "no text": ("png", ["x"]),
    "nothing": ("png", ""),
    "no PNG": ("png", text(b"GIF89a" + bytes(100))),
    "a JPEG as a PNG": ("png", text(JPEG)),
    "HTML in a PNG's place": ("png", text(b"<html><script>")),
    "a million million points": ("png", text(SIGNATURE + header(1_000_000, 1_000_000) + POINTS + END)),
    "51 million points": ("png", text(SIGNATURE + header(51_000, 1_000) + POINTS + END)),
    "no width": ("png", text(SIGNATURE + header(0, 5) + POINTS + END)),
    "two headers": ("png", text(SIGNATURE + header() + header(99_999, 99_999) + POINTS + END)),
    "no header": ("png", text(SIGNATURE + POINTS + END)),
    "a header of an unknown kind": ("png", text(SIGNATURE + header(rest=b"\x08\x07\x00\x00\x00") + POINTS + END)),
    "a short header": ("png", text(SIGNATURE + chunk(b"IHDR", b"\x00\x00\x00\x01") + POINTS + END)),
    "no points": ("png", text(SIGNATURE + header() + END)),
    "no end": ("png", text(SIGNATURE + header() + POINTS)),
    "more after its end": ("png", text(PNG + b"<script>")),
    "a chunk beyond its end": ("png", text(SIGNATURE + header() + b"\xff\xff\xff\xffIDAT")),
    "a wrong checksum": ("png", text(SIGNATURE + header() + chunk(b"IDAT", b"x", checksum=1) + END)),
    "an animation": ("png", text(SIGNATURE + header() + chunk(b"acTL", bytes(8)) + POINTS + END)),
    "a chunk of no name": ("png", text(SIGNATURE + header() + chunk(b"\x00\x01\x02\x03") + POINTS + END)),
    "too many bytes": ("png", text(SIGNATURE + header() + chunk(b"IDAT", bytes(21 << 20)) + END)),
    "no JPEG": ("jpeg", text(PNG)),
    "a JPEG of too many points": ("jpeg", text(b"\xff\xd8" + frame(60_000, 60_000) + SCAN)),
    "a progressive one of too many": ("jpeg", text(b"\xff\xd8" + frame(60_000, 60_000, 0xC2) + SCAN)),
    "a second frame": ("jpeg", text(b"\xff\xd8" + frame() + frame(60_000, 60_000) + SCAN)),
    "a frame without a height": ("jpeg", text(b"\xff\xd8" + frame(60_000, 0) + SCAN)),
    "a frame within a comment": ("jpeg", text(b"\xff\xd8\xff\xfe\x00\x13" + frame()[:17] + SCAN)),
    "a marker beyond its end": ("jpeg", text(b"\xff\xd8\xff\xe0\xff\xff")),
    "a marker of no length": ("jpeg", text(b"\xff\xd8\xff\xe0\x00\x00" + frame() + SCAN)),
    "nothing but markers": ("jpeg", text(b"\xff\xd8" + b"\xff" * 100)),
    "nothing but a beginning": ("jpeg", text(b"\xff\xd8\xff")),
}


@pytest.mark.parametrize("picture", BAD)
def test_a_picture_that_is_none_or_too_large_is_not_shown_and_that_is_said(picture: str) -> None:
    kind, data = BAD[picture]
    shown = displayed({f"image/{kind}": data, "text/plain": "<Figure>"})["data"]
    assert shown.keys() == {"text/plain"}
    assert shown["text/plain"].startswith("<Figure>\n(a ")
    assert "from bob is not shown: " in shown["text/plain"]


@pytest.mark.parametrize(
    ("kind", "name"), [("text/markdown", "Markdown"), ("text/latex", "Latex"), ("text/html", "HTML")]
)
def test_what_has_no_text_but_its_source_is_shown_as_its_source(kind: str, name: str) -> None:
    data = {"text/plain": f"<IPython.core.display.{name} object>", kind: "**a** $x$ <b>"}
    shown = harmless({"kind": "display_data", "content": {"data": data}}, "bob")
    assert shown is not None
    assert list(shown["content"]["data"]) == ["text/plain"]
    assert shown["content"]["data"]["text/plain"].startswith("**a** $x$ <b>\n(")


def test_what_marks_a_display_stays_and_nothing_else_does() -> None:
    transient = {AT_END: True, VALUE: "yes", "other": True}
    shown = harmless({"kind": "display_data", "content": {"data": {}, "transient": transient}}, "bob")
    assert shown is not None
    assert shown["content"]["transient"] == {AT_END: True}
