"""HTML of the first images of a dataset, as notebooks show them."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import Integer

_MOST = 12
"""Most images that are shown."""
_HEIGHT = 64
"""Height of an image on the page, in pixels."""


def image_row(images: Integer[np.ndarray, "n height width channels"], levels: int) -> str:
    """Shows the first images of an array side by side; empty unless they have 1 or 3 channels.

    Args:
      images: Integers ``0..levels-1``.
      levels: Number of values.
    """
    if images.shape[-1] not in (1, 3):
        return ""
    shown = images[:_MOST].astype(np.float64) * 255 / (levels - 1)
    tags = [_tag(np.rint(image).astype(np.uint8)) for image in shown]
    return f"<div>{''.join(tags)}</div>"


def _tag(image: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    plane = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(plane).save(buffer, "PNG")
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    style = f"height:{_HEIGHT}px;image-rendering:pixelated;margin:1px"
    return f'<img src="data:image/png;base64,{content}" style="{style}">'
