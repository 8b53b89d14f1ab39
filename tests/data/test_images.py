"""Bytes to upright pixels: every mode and orientation, every kind of broken file, nothing but named reasons."""

import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from raysl.data.images import BadImage, Picture, contrast, decode, fitted, sharpness, to_pixels
from tests.data.pictures import BAD, PHOTO, oriented, png_header, saved, scene


def read(data: bytes, channels: int = 3, least_side: int = 1000, max_pixels: int = 50_000_000) -> Picture:
    return decode(data, channels, least_side, max_pixels)


def colours(data: bytes) -> list[tuple[int, ...]]:
    """The four corners of an RGB picture: top left, top right, bottom left, bottom right."""
    image = read(data).image
    right, bottom = image.width - 1, image.height - 1
    return [image.getpixel(place) for place in ((0, 0), (right, 0), (0, bottom), (right, bottom))]


@pytest.mark.parametrize("name", BAD)
def test_a_broken_file_has_its_reason(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(BadImage) as error:
        read(data)
    assert error.value.reason == reason


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow is built without AVIF")
def test_a_damaged_avif_is_a_broken_image() -> None:
    whole = saved(scene(0), "AVIF")
    start = whole.index(b"mdat") + 4
    for damaged in (whole.replace(b"av1C", b"av1?"), whole[:start] + bytes(len(whole) - start)):
        with pytest.raises(BadImage, match="broken_image"):
            read(damaged)


def test_the_limit_on_pixels_is_checked_before_anything_is_decoded() -> None:
    with pytest.raises(BadImage, match="too_many_pixels"):
        read(png_header(101, 100), max_pixels=10_000)
    with pytest.raises(BadImage, match="broken_image"):
        read(png_header(100, 100), max_pixels=10_000)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_it_is_to_be_seen(orientation: int) -> None:
    seen = Image.new("RGB", (64, 32), "red")
    seen.paste((0, 0, 255), (0, 0, 32, 16))
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's number of what stores `seen` under each orientation
    stored = seen if orientation == 1 else seen.transpose(Image.Transpose(turns[orientation]))
    picture = read(oriented(stored, orientation))
    assert (picture.width, picture.height) == (64, 32)
    corner, *others = colours(oriented(stored, orientation))
    assert corner[2] > 200 > 60 > corner[0]
    assert all(colour[0] > 200 for colour in others)


def test_broken_exif_leaves_the_picture_as_it_is() -> None:
    data = saved(scene(1), exif=b"Exif\0\0MM\0*\xff\xff\xff\xffgarbage")
    assert (read(data).width, read(data).height) == (96, 64)


def test_16_bits_are_brought_to_8() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    values = to_pixels(read(saved(Image.fromarray(ramp), "PNG"), channels=1).image)[..., 0]
    assert np.abs(values.astype(int) - (ramp / 257)).max() <= 1


def test_32_bits_are_stretched_to_8() -> None:
    ramp = np.linspace(-3, 5, 64 * 64).reshape(64, 64).astype(np.float32)
    values = to_pixels(read(saved(Image.fromarray(ramp), "TIFF"), channels=1).image)
    assert (int(values.min()), int(values.max())) == (0, 255)


def test_values_that_are_no_numbers_leave_the_others_of_32_bits_as_they_are() -> None:
    """Sensors and maps mark by them what was not measured."""
    values = np.array([[1000, 1127, np.nan], [1255, np.inf, -np.inf]], np.float32)
    found = decode(saved(Image.fromarray(values), "TIFF"), 1, 8, 100).image
    assert np.asarray(found).tolist() == [[0, 127, 0], [255, 255, 0]]
    nothing = decode(saved(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"), 1, 8, 100).image
    assert np.asarray(nothing).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_is_laid_on_white_in_any_mode(channels: int) -> None:
    grey = Image.new("L", (2, 1), 7)
    grey.putpixel((1, 0), 100)
    for image, colour in ((grey, 7), (grey.convert("RGB"), (7, 7, 7))):
        found = np.asarray(decode(saved(image, "PNG", transparency=colour), channels, 8, 100).image)
        assert found.reshape(2, channels)[:, 0].tolist() == [255, 100]


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 4, 8))
    left, right = (0, 0, 255), (255, 255, 255)
    assert colours(saved(clear, "PNG")) == [left, right, left, right]
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(0, (4, 0, 8, 8))
    assert colours(saved(palette, "PNG", transparency=0)) == [left, right, left, right]
    grey = Image.new("LA", (8, 8), (0, 0))
    assert colours(saved(grey, "PNG")) == [(255, 255, 255)] * 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_every_colour_mode_comes_out_as_asked(mode: str) -> None:
    image = scene(2).convert(mode)
    data = saved(image, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    assert read(data).image.mode == "RGB"
    grey = np.asarray(read(data, channels=1).image, float)
    assert np.abs(grey - np.asarray(image.convert("RGB").convert("L"), float)).mean() < 3


def test_cmyk_jpeg_keeps_its_colours() -> None:
    red = saved(Image.new("RGB", (32, 32), (220, 30, 30)).convert("CMYK"))
    assert np.abs(np.array(colours(red)[0]) - (220, 30, 30)).max() < 12


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("blue", "red", "red")]
    assert colours(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0] == (0, 0, 255)


def test_the_name_of_a_file_says_nothing() -> None:
    assert read(saved(scene(3), "WEBP")).width == 96


def test_formats_that_start_programs_are_refused() -> None:
    with pytest.raises(BadImage, match="not_an_image"):
        read(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


def test_jpeg_is_decoded_small_and_says_its_true_size() -> None:
    picture = read(saved(scene(4, 800, 400), quality=90), least_side=64)
    assert (picture.width, picture.height) == (800, 400)
    assert 64 <= picture.image.height < 128


def test_a_square_is_the_middle_or_all_of_a_picture() -> None:
    image = Image.new("L", (40, 20), 100)
    image.paste(200, (0, 0, 10, 20))
    assert to_pixels(fitted(image, 10, "crop")).max() < 110
    padded = to_pixels(fitted(image, 10, "pad"))[..., 0]
    assert (padded[:2] == 0).all()
    assert padded[5, 0] > padded[5, 9] == 100
    squeezed = to_pixels(fitted(image, 10, "stretch"))[..., 0]
    assert squeezed[0, 0] > 190
    assert squeezed[0, 9] == 100


def test_blank_and_blurred_pictures_are_told_from_others() -> None:
    board = np.indices((64, 64)).sum(0) // 4 % 2 * 255
    sharp = Image.fromarray(board.astype(np.uint8))
    blurred = sharp.resize((8, 8)).resize((64, 64), Image.Resampling.BICUBIC)
    assert contrast(Image.new("L", (9, 9), 7)) == 0
    assert contrast(sharp) == pytest.approx(127.5)
    assert sharpness(sharp, 256) > 100 * sharpness(blurred, 256)
    assert sharpness(Image.new("L", (2, 9)), 256) == 0


REASONS = {"empty_file", "not_an_image", "broken_image", "too_many_pixels"}


def outcome(data: bytes) -> str:
    """Mode of the picture, or why there is none; any other exception rises."""
    try:
        return read(data, max_pixels=10**6).image.mode
    except BadImage as error:
        return error.reason


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]), st.data())
def test_damaged_bytes_are_a_picture_or_a_reason(kind: str, data: st.DataObject) -> None:
    whole = bytearray(saved(scene(5, 24, 16), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(bytes(whole[: data.draw(st.integers(0, len(whole)))])) in {"RGB", *REASONS}


@example(b"II*\0")
@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_a_reason(data: bytes) -> None:
    assert outcome(data) in {"RGB", *REASONS}


def test_a_picture_in_memory_is_not_touched() -> None:
    assert Image.open(io.BytesIO(PHOTO)).size == (96, 64)
    assert read(PHOTO, max_pixels=96 * 64).width == 96
