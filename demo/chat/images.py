"""Whether a file is an image, and what is kept of it.

Neither its name nor the type that the browser claims is asked. Pillow decodes it, as one of four
formats and as no other, and it is encoded anew: so what is kept is an image and nothing else
beside, holds no place and no camera, and is no larger than a page shows. Of an image that moves
the first frame is kept.
"""

from dataclasses import dataclass
from io import BytesIO

from django.conf import settings
from PIL import Image, ImageOps

from live.limits import Refused

__all__ = ["CONTENT_TYPE", "Picture", "picture_of"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
#: What is kept, whatever came.
CONTENT_TYPE = "image/webp"
#: The longer side of what is kept, in pixels.
LONGEST = 1600


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that is fit to be kept; its sides in pixels."""

    content: bytes
    width: int
    height: int


def picture_of(file) -> Picture:
    """Return what is kept of an uploaded file, or raise :class:`Refused`."""
    if file.size > settings.CHAT_IMAGE_BYTES:
        raise too_large()
    try:
        with Image.open(file, formats=FORMATS) as image:
            # The size is in the first bytes. Decoded, a small file may fill the memory.
            if image.width * image.height > settings.CHAT_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            image.draft("RGB", (LONGEST, LONGEST))  # of a JPEG, no more is decoded than is kept
            kept = ImageOps.exif_transpose(image)
            kept.thumbnail((LONGEST, LONGEST))
            kept = kept.convert("RGBA" if kept.has_transparency_data else "RGB")
    except Image.DecompressionBombError:  # Pillow's own limit is higher
        most = settings.CHAT_IMAGE_PIXELS // 1_000_000
        raise Refused("too_large", f"An image has at most {most} million pixels.") from None
    except Exception:  # decoders fail in as many ways as files can be broken
        raise Refused("no_image", "This is no image: PNG, JPEG, WebP and GIF are.") from None
    encoded = BytesIO()
    kept.save(encoded, "WEBP", quality=82)
    return Picture(encoded.getvalue(), kept.width, kept.height)


def too_large() -> Refused:
    most = settings.CHAT_IMAGE_BYTES // 1_000_000
    return Refused("too_large", f"An image has at most {most} MB.")
