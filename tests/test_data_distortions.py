"""Distortions of images: exact values, inverses, moments, seeds and names."""

from __future__ import annotations

import numpy as np
import pytest

import likejax as lj
from likejax.data.steps import STEPS, usage

RNG = np.random.default_rng(0)
PICTURES = lj.Dataset.from_array(RNG.integers(0, 256, (6, 7, 7, 3), dtype=np.uint8))


def column(*values: int, levels: int = 256) -> lj.Dataset:
    """One image of a single column."""
    return lj.Dataset.from_array(np.array(values, np.uint8).reshape(1, -1, 1, 1), levels=levels)


def values(dataset: lj.Dataset) -> list[int]:
    return dataset.examples.ravel().tolist()


# --- moved pixels


def test_flips_move_pixels_and_undo_themselves():
    corner = np.zeros((1, 3, 4, 1), np.uint8)
    corner[0, 0, 1] = 9
    image = lj.Dataset.from_array(corner)
    assert image.hflip().examples[0, 0, 2, 0] == 9
    assert image.vflip().examples[0, 2, 1, 0] == 9
    for flip in (lj.data.hflip, lj.data.vflip):
        assert flip(flip(PICTURES)).fingerprint() == PICTURES.fingerprint()
        assert flip(PICTURES).fingerprint() != PICTURES.fingerprint()


def test_quarter_turns_are_exact():
    """Counterclockwise: the upper right corner comes to the upper left; four turns are none."""
    image = lj.Dataset.from_array(np.arange(6, dtype=np.uint8).reshape(1, 2, 3))
    assert image.rotate(90).examples[0, ..., 0].tolist() == [[2, 5], [1, 4], [0, 3]]
    assert image.rotate(-90).fingerprint() == image.rotate(270).fingerprint()
    assert image.rotate(180).fingerprint() == image.hflip().vflip().fingerprint()
    turned = image
    for _ in range(4):
        turned = turned.rotate(90)
    assert turned.fingerprint() == image.fingerprint() == image.rotate(-720).fingerprint()
    assert turned.labels is None
    assert turned.provenance[1:] == ("rotated by 90 degrees counterclockwise",) * 4


def test_other_turns_interpolate():
    """45 degrees: the middle stays, and a neighbor at 1 comes to the distance 1 on a diagonal.

    The pixel one to the right and one up lies at sqrt(2) from the middle. Turned back it is at
    (sqrt(2), 0) from it, between the pixels at 1 and 2 of the row: their bilinear mean has the
    weights 2 - sqrt(2) and sqrt(2) - 1.
    """
    array = np.zeros((1, 5, 5, 1), np.uint8)
    array[0, 2] = np.array([0, 0, 200, 100, 40])[:, None]
    turned = lj.Dataset.from_array(array).rotate(45)
    assert turned.event_shape == (5, 5, 1)
    assert turned.examples[0, 2, 2, 0] == 200
    between = (2 - np.sqrt(2)) * 100 + (np.sqrt(2) - 1) * 40
    assert turned.examples[0, 1, 3, 0] == round(between)
    nearest = lj.Dataset.from_array(array).rotate(45, filter="nearest")
    assert nearest.examples[0, 1, 3, 0] == 100
    assert turned.provenance[-1].endswith("by 45 degrees counterclockwise (bilinear, 0 around)")


def test_turns_near_a_quarter_are_near_it():
    """The direction and the middle of interpolated turns are those of exact ones."""
    smooth = PICTURES.blur(2.0)
    exact, near = (smooth.rotate(angle).examples.astype(int) for angle in (90, 90.01))
    assert np.abs(exact - near)[:, 1:-1, 1:-1].max() <= 1


def test_what_lies_around_turned_images():
    white = lj.Dataset.from_array(np.full((1, 9, 9, 1), 255, np.uint8))
    assert white.rotate(45).examples[0, 0, 0, 0] == 0
    assert (white.rotate(45, value=255).examples == 255).all()


def test_the_middle_is_cut_out():
    image = lj.Dataset.from_array(np.arange(20, dtype=np.uint8).reshape(1, 4, 5))
    assert image.crop(2, 2).examples[0, ..., 0].tolist() == [[6, 7], [11, 12]]
    assert image.crop(4, 5).fingerprint() == image.fingerprint()
    padded = image.pad(8, 9)
    assert padded.crop(4, 5).fingerprint() == image.fingerprint()


# --- changed values


@pytest.mark.parametrize(
    ("step", "given", "expected"),
    [
        ("contrast:1", (0, 1, 254, 255), [0, 1, 254, 255]),
        ("contrast:0", (0, 255), [128, 128]),  # 127.5 to the even level
        ("contrast:2", (0, 64, 127, 128, 191, 255), [0, 0, 126, 128, 254, 255]),
        ("contrast:0.5", (0, 127, 128, 255), [64, 127, 128, 191]),
        ("brightness:0.2", (0, 100, 204, 205), [51, 151, 255, 255]),
        ("brightness:-0.2", (0, 51, 52, 255), [0, 0, 1, 204]),
        ("brightness:1", (0, 255), [255, 255]),
    ],
)
def test_contrast_and_brightness(step, given, expected):
    assert values(lj.data.apply_steps(column(*given), step)) == expected


def test_contrast_is_about_the_middle_of_the_levels():
    """Inverting commutes with it; with 17 levels the middle is 8, which stays."""
    assert values(column(0, 8, 16, levels=17).contrast(0.5)) == [4, 8, 12]
    odd = column(*range(0, 17), levels=17)
    assert odd.contrast(3).invert().fingerprint() == odd.invert().contrast(3).fingerprint()


def test_blur_keeps_constants_and_means():
    constant = lj.Dataset.from_array(np.full((2, 6, 6, 3), 77, np.uint8))
    assert constant.blur(1.5).fingerprint() == constant.fingerprint()
    dot = np.zeros((1, 9, 9, 1), np.uint8)
    dot[0, 4, 4] = 250
    taps = np.exp(-(np.arange(-4, 5) ** 2) / 2)
    taps /= taps.sum()
    expected = np.rint(250 * np.outer(taps, taps))
    np.testing.assert_array_equal(
        lj.Dataset.from_array(dot).blur(1.0).examples[0, ..., 0], expected
    )
    assert PICTURES.blur(1.0).fingerprint() == PICTURES[:].blur(1.0).fingerprint()
    one_channel = PICTURES.examples.copy()
    one_channel[..., 1:] = 0
    assert not lj.Dataset.from_array(one_channel).blur(1.0).examples[..., 1:].any()


def test_moments_of_noise():
    """Mean and deviation of 160,000 draws within four standard errors; rounding adds 1/12."""
    gray = lj.Dataset.from_array(np.full((100, 40, 40, 1), 120, np.uint8))
    noise = gray.add_noise(0.1).examples.astype(float) - 120
    sigma = np.sqrt(25.5**2 + 1 / 12)
    assert abs(noise.mean()) < 4 * sigma / 400
    assert abs(noise.std() - sigma) < 4 * sigma / np.sqrt(2 * noise.size)
    neighbors = np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]
    assert abs(neighbors) < 4 / 400


def test_noise_depends_on_seed_and_row_alone():
    noisy = PICTURES.add_noise(0.2)
    assert noisy.fingerprint() == PICTURES.add_noise(0.2, seed=0).fingerprint()
    assert noisy.fingerprint() != PICTURES.add_noise(0.2, seed=1).fingerprint()
    np.testing.assert_array_equal(PICTURES[:2].add_noise(0.2).examples, noisy.examples[:2])
    same = lj.Dataset.from_array(np.full((2, 5, 5, 1), 120, np.uint8)).add_noise(0.2)
    assert (same.examples[0] != same.examples[1]).any()


def test_noise_is_cut_off_at_the_levels():
    digits = lj.load("digits", split="test")
    noisy = digits.add_noise(1.0)
    assert (noisy.examples.min(), noisy.examples.max()) == (0, 16)
    assert noisy.representation() == digits.representation()
    assert noisy.provenance[-1] == "Gaussian noise of 1 of the range with seed 0"


# --- names


@pytest.mark.parametrize(
    ("step", "same"),
    [
        ("hflip", lambda data: data.hflip()),
        ("vflip+hflip", lambda data: data.rotate(180)),
        ("rotate:30", lambda data: data.rotate(30.0)),
        ("rotate:-30:nearest:9", lambda data: data.rotate(-30, filter="nearest", value=9)),
        ("contrast:0.5", lambda data: data.contrast(0.5)),
        ("brightness:-0.1", lambda data: data.brightness(-0.1)),
        ("blur:0.7", lambda data: data.blur(0.7)),
        ("noise:0.1", lambda data: data.add_noise(0.1)),
        ("noise:0.1:3", lambda data: data.add_noise(0.1, 3)),
        ("crop:5x6", lambda data: data.crop(5, 6)),
    ],
)
def test_steps_are_methods(step, same):
    by_step = lj.data.apply_steps(PICTURES, step)
    assert by_step.fingerprint() == same(PICTURES).fingerprint()
    assert by_step.examples.dtype == np.uint8
    assert by_step.levels == 256


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("vflp", "unknown step 'vflp'.*did you mean 'vflip'"),
        ("hflip:1", r"expected hflip\): got 1 argument"),
        ("rotate", r"expected rotate:DEGREES\[:FILTER\]\[:VALUE\]\): got no argument"),
        ("rotate:left", "got 'left' for DEGREES"),
        ("rotate:nan", "it must be finite"),
        ("rotate:10:bilinar", "unknown filter 'bilinar'.*did you mean 'bilinear'"),
        ("rotate:10:nearest:256", r"expected a value in 0\.\.255 around the images, got 256"),
        ("contrast:-1", "expected factor to be a number of at least 0"),
        ("brightness:1.1", "expected shift to be a number .*at most 1"),
        ("blur:0", "expected deviation to be a number above 0"),
        ("noise:0", "expected deviation to be a number above 0"),
        ("noise:0.1:-1", "expected seed to be an integer of at least 0"),
        ("crop:8x7", "expected at most 7x7 to keep, got 8x7"),
        ("crop:0x7", "expected height to be an integer of at least 1"),
    ],
)
def test_steps_that_do_not_fit(step, message):
    with pytest.raises(ValueError, match=message):
        lj.data.apply_steps(PICTURES, step)


@pytest.mark.parametrize("step", ["hflip", "rotate:90", "contrast:2", "blur:1", "noise:1"])
def test_points_are_no_images(step):
    with pytest.raises(ValueError, match="expected integer images for this step"):
        lj.load(f"moons+{step}", split="test")


def test_the_command_lists_every_step(capsys):
    from likejax.cli import main

    assert main(["datasets"]) == 0
    listed = capsys.readouterr().out
    for step in STEPS:
        assert usage(step) in listed
