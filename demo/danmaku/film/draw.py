"""Draw the film that the danmaku page shows: a day at the mill pond, which ends as it began.

    pip install numpy pillow; apt install ffmpeg
    python demo/danmaku/film/draw.py

Everything that moves goes through a whole number of rounds in the film, so that it loops without
a seam. The result is committed: nobody needs this in order to run the site.
"""

import itertools
import math
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SECONDS, FRAMES_PER_SECOND = 16, 24
WIDTH, HEIGHT = 640, 360
FINE = 2  # drawn so many times larger, and then reduced: that smooths the edges
SHORE = 214  # above it the land, below it its image in the water
FILM = Path(__file__).resolve().parents[1] / "static/danmaku/pond.webm"

# The colour of the sky at the top and at the horizon, at five times of the day.
SKY = (
    (0.00, (18, 28, 62), (64, 62, 104)),
    (0.25, (88, 120, 178), (250, 190, 140)),
    (0.50, (70, 148, 214), (196, 226, 240)),
    (0.75, (74, 66, 128), (246, 150, 96)),
    (1.00, (18, 28, 62), (64, 62, 104)),
)
STARS = np.random.default_rng(7).random((90, 3))


def sky_at(moment):
    """Return the sky's two colours between those of the table."""
    for (begin, *before), (end, *after) in itertools.pairwise(SKY):
        if moment <= end:
            part = (moment - begin) / (end - begin)
            return [
                np.array(one) + (np.array(two) - one) * part
                for one, two in zip(before, after, strict=True)
            ]
    raise ValueError(moment)


def scale(*numbers):
    return [number * FINE for number in numbers]


def shade(color, light):
    return tuple(int(part * (0.32 + 0.68 * light)) for part in color)


def circle(pen, x, y, radius, **how):
    pen.ellipse(scale(x - radius, y - radius, x + radius, y + radius), **how)


def land(moment):
    """Return everything above the water at a moment of the film, which is a number from 0 to 1."""
    top, horizon = sky_at(moment)
    light = 0.5 - 0.5 * math.cos(math.tau * moment)
    down = np.linspace(0, 1, SHORE * FINE)[:, None, None] ** 0.8
    sky = np.broadcast_to(top + (horizon - top) * down, (SHORE * FINE, WIDTH * FINE, 3))
    image = Image.fromarray(sky.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for x, y, phase in STARS:
        glow = max(0.0, 1 - 2.4 * light) * (0.6 + 0.4 * math.sin(math.tau * (4 * moment + phase)))
        if glow > 0.05:
            shine = tuple(int(part + (255 - part) * glow) for part in top)
            circle(pen, x * WIDTH, y * SHORE * 0.8, 0.5 + phase * 0.7, fill=shine)
    # The sun and, opposite, the moon go around a point below the horizon.
    for offset, radius, color in ((0.5, 21, (255, 236, 170)), (0.0, 15, (232, 236, 248))):
        angle = math.tau * (moment - offset)
        circle(pen, 290 + 230 * math.sin(angle), 230 - 180 * math.cos(angle), radius, fill=color)
    for number, (y, size, speed) in enumerate(((42, 17, 1), (74, 12, 1), (30, 11, 2))):
        x = (number * 0.37 + speed * moment) % 1 * (WIDTH + 160) - 80
        white = shade((255, 250, 246), 0.35 + 0.65 * light)
        for shift, part in ((-1.2, 0.7), (0, 1), (1.2, 0.75)):
            circle(pen, x + shift * size, y + (1 - part) * size, size * part, fill=white)
        pen.rectangle(scale(x - 1.9 * size, y + size * 0.35, x + 1.95 * size, y + size), fill=white)
    hills(pen, 150, 26, 1.6, 0.4, shade((112, 150, 150), light))
    hills(pen, 178, 20, 2.4, 2.0, shade((82, 130, 104), light))
    hills(pen, 202, 8, 3.2, 4.1, shade((58, 104, 66), light))
    for x, height in ((40, 74), (78, 52), (112, 64), (330, 46), (362, 58), (610, 66)):
        sway = 2.5 * math.sin(math.tau * (4 * moment + x / 90))
        pen.rectangle(scale(x - 2, 206 - height / 2, x + 2, 212), fill=shade((84, 60, 44), light))
        circle(pen, x + sway, 206 - height * 0.62, height * 0.3, fill=shade((44, 98, 58), light))
        circle(
            pen, x + sway - 5, 206 - height * 0.7, height * 0.2, fill=shade((66, 124, 70), light)
        )
    mill(pen, moment, light)
    return image


def hills(pen, y, height, waves, phase, color):
    line = [
        (x * FINE, (y + height * math.sin(waves * math.tau * x / WIDTH + phase)) * FINE)
        for x in range(0, WIDTH + 8, 8)
    ]
    pen.polygon([*line, (WIDTH * FINE, SHORE * FINE), (0, SHORE * FINE)], fill=color)


def mill(pen, moment, light):
    pen.rectangle(scale(452, 128, 560, SHORE), fill=shade((214, 196, 170), light))
    pen.polygon(scale(440, 130, 506, 82, 572, 130), fill=shade((150, 66, 48), light))
    pen.rectangle(scale(534, 84, 546, 116), fill=shade((120, 84, 70), light))
    lamp = tuple(int(part) for part in np.array((255, 214, 120)) * (1 - light * 0.55))
    for x, y in ((500, 146), (532, 146), (500, 178), (532, 178)):
        pen.rectangle(scale(x, y, x + 14, y + 17), fill=lamp)
    # Smoke, each puff some way further than the one before.
    for number in range(5):
        way = (number / 5 + 4 * moment) % 1
        gray = tuple(
            int(part) for part in np.array((214, 214, 220)) * (0.45 + 0.5 * light) - 20 * way
        )
        circle(pen, 540 + 30 * way, 82 - 56 * way, (2 + 7 * way) * (1 - way * 0.5), fill=gray)
    wood, dark = shade((112, 74, 48), light), shade((70, 46, 32), light)
    x, y, radius = 448, 174, 44
    for number in range(8):
        angle = math.tau * (number / 8 + 3 * moment)
        to_x, to_y = math.cos(angle), math.sin(angle)
        pen.line(scale(x, y, x + radius * to_x, y + radius * to_y), fill=wood, width=3 * FINE)
        pen.line(
            scale(
                x + (radius + 5) * to_x + 9 * to_y,
                y + (radius + 5) * to_y - 9 * to_x,
                x + (radius + 5) * to_x - 9 * to_y,
                y + (radius + 5) * to_y + 9 * to_x,
            ),
            fill=dark,
            width=5 * FINE,
        )
    circle(pen, x, y, radius, outline=wood, width=4 * FINE)
    circle(pen, x, y, radius * 0.6, outline=wood, width=3 * FINE)
    circle(pen, x, y, 6, fill=dark)


def water(above, moment):
    """Return the image of the land in the water, waving more the nearer it is."""
    land_rows = np.asarray(above, dtype=float)
    depth = np.arange((HEIGHT - SHORE) * FINE)
    near = depth / len(depth)
    wave = np.sin(math.tau * (12 * np.sqrt(near + 0.02) - 8 * moment))
    source = np.clip(
        (SHORE * FINE - 2) - depth * 1.35 + 7 * FINE * wave * near, 0, SHORE * FINE - 1
    )
    shift = 5 * FINE * near * np.sin(math.tau * (19 * np.sqrt(near + 0.01) + 6 * moment))
    columns = np.arange(WIDTH * FINE)[None, :] + shift[:, None]
    image = land_rows[
        source.astype(int)[:, None], np.clip(columns, 0, WIDTH * FINE - 1).astype(int)
    ]
    image = image * (0.8 - 0.22 * near)[:, None, None] + np.array((4, 18, 26))
    image += (6 + 10 * near)[:, None, None] * np.maximum(wave, 0)[:, None, None] ** 3
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def ducks(pen, moment, light):
    for number, (size, y) in enumerate(((1.25, 268), (0.8, 262), (0.8, 266))):
        x = WIDTH + 70 - ((moment + 0.35) % 1) * (WIDTH + 180) + 38 * number
        y += 1.5 * math.sin(math.tau * (10 * moment + number / 3))
        body, head = shade((246, 240, 226), 0.3 + 0.7 * light), shade((246, 226, 150), light)
        pen.ellipse(
            scale(x - 17 * size, y - 8 * size, x + 17 * size, y + 8 * size),
            fill=body if number == 0 else head,
        )
        circle(pen, x - 15 * size, y - 11 * size, 7.5 * size, fill=body if number == 0 else head)
        pen.polygon(
            scale(
                x - 21 * size,
                y - 12 * size,
                x - 29 * size,
                y - 8 * size,
                x - 21 * size,
                y - 7 * size,
            ),
            fill=shade((236, 150, 44), light),
        )
        circle(pen, x - 17 * size, y - 13 * size, 1.3 * size, fill=(20, 20, 24))


def frame(moment):
    image = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE))
    above = land(moment)
    image.paste(above, (0, 0))
    image.paste(water(above, moment), (0, SHORE * FINE))
    ducks(ImageDraw.Draw(image), moment, 0.5 - 0.5 * math.cos(math.tau * moment))
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)


def main():
    FILM.parent.mkdir(parents=True, exist_ok=True)
    count = SECONDS * FRAMES_PER_SECOND
    encoder = subprocess.Popen(  # noqa: S603 - nothing in it comes from elsewhere
        [
            *("ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"),
            *("-s", f"{WIDTH}x{HEIGHT}", "-r", str(FRAMES_PER_SECOND), "-i", "-"),
            *("-c:v", "libvpx-vp9", "-crf", "47", "-b:v", "0", "-pix_fmt", "yuv420p"),
            # A key frame each second: seeking is quick.
            *("-g", str(FRAMES_PER_SECOND), "-deadline", "good", "-cpu-used", "3", str(FILM)),
        ],
        stdin=subprocess.PIPE,
    )
    assert encoder.stdin
    with encoder.stdin as pipe:
        for number in range(count):
            # A quarter of a day on: the film begins in the morning.
            pipe.write(frame((0.25 + number / count) % 1).tobytes())
    if encoder.wait():
        raise SystemExit("ffmpeg could not encode the film")
    print(f"{FILM}: {FILM.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
