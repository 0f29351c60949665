"""Draws the wallpaper as SVG on standard output: a house above a sea of clouds, as the name Yunju says."""

import math
import random

WIDTH, HEIGHT = 1920, 1200

# Ridges from far to near: height of the crest line, roughness, steps, colour of crest and of foot.
RIDGES = [
    (600, 95, 1.00, "#9fb8cc", "#d3dfe6"),
    (680, 120, 0.80, "#7d9cb6", "#c3d3de"),
    (790, 110, 0.95, "#587d9c", "#a9c0d0"),
    (905, 120, 0.75, "#365c7d", "#7f9fb6"),
    (1040, 105, 0.85, "#1c3d5a", "#2f546f"),
]


def ridge(rng, level, height, frequency):
    """Points of a crest: octaves of waves, folded so that they make peaks rather than swells."""
    octaves = []
    for octave in range(7):
        octaves.append((frequency * 1.9 * 2**octave, rng.uniform(0, math.tau), 0.52**octave))
    points = []
    for x in range(-8, WIDTH + 9, 4):
        u = x / WIDTH
        y = sum(a * (1 - 2 * abs(math.sin(u * f * math.pi / 2 + p))) for f, p, a in octaves)
        points.append((x, level - height * y * 0.75))
    return points


def polygon(points, fill):
    path = " ".join(f"{x},{y:.1f}" for x, y in points)
    return f'<polygon fill="{fill}" points="{path} {WIDTH + 8},{HEIGHT + 8} -8,{HEIGHT + 8}"/>'


def clouds(rng, level, count, opacity):
    """A bank of cloud lying in the valley in front of a ridge."""
    shapes = []
    for _ in range(count):
        x = rng.uniform(-100, WIDTH + 100)
        y = level + rng.gauss(0, 16)
        rx = rng.uniform(220, 560)
        shapes.append(f'<ellipse cx="{x:.0f}" cy="{y:.0f}" rx="{rx:.0f}" ry="{rx * rng.uniform(0.10, 0.17):.0f}"/>')
    return f'<g fill="url(#cloud)" opacity="{opacity}">{"".join(shapes)}</g>'


def house(x, y):
    """A small house with a curved roof and a lit window, standing at (x, y)."""
    ink = "#12293d"
    return f"""<g transform="translate({x:.0f},{y - 22:.0f}) scale(0.85)">
  <path fill="{ink}" d="M-40,6 L40,6 L44,40 L-44,40 Z"/>
  <path fill="{ink}" d="M-58,-12 Q-30,-17 0,-42 Q30,-17 58,-12 Q44,-9 36,-8 L-36,-8 Q-44,-9 -58,-12 Z"/>
  <rect fill="{ink}" x="-30" y="-10" width="60" height="20"/>
  <rect fill="#ffd9a0" x="-18" y="-6" width="12" height="13" rx="1"/>
  <rect fill="#ffd9a0" x="6" y="-6" width="12" height="13" rx="1"/>
</g>"""


def main():
    rng = random.Random("yunju")
    defs = ["""<linearGradient id="sky" x1="0" y1="0" x2="0" y2="1">
  <stop offset="0" stop-color="#2b4f78"/><stop offset="0.22" stop-color="#5b88ae"/>
  <stop offset="0.42" stop-color="#a9c3d2"/><stop offset="0.56" stop-color="#f2dcc3"/>
  <stop offset="0.75" stop-color="#f7e9d9"/>
</linearGradient>
<radialGradient id="sun"><stop offset="0" stop-color="#fff6e6"/><stop offset="0.13" stop-color="#fff1da" stop-opacity="0.95"/>
  <stop offset="0.15" stop-color="#ffe9cb" stop-opacity="0.5"/><stop offset="0.3" stop-color="#ffe6c2" stop-opacity="0.24"/>
  <stop offset="0.6" stop-color="#ffe6c2" stop-opacity="0.07"/><stop offset="1" stop-color="#ffe6c2" stop-opacity="0"/>
</radialGradient>
<radialGradient id="cloud"><stop offset="0" stop-color="#f6f3ee" stop-opacity="0.85"/><stop offset="0.4" stop-color="#f6f3ee" stop-opacity="0.55"/>
  <stop offset="0.75" stop-color="#f6f3ee" stop-opacity="0.14"/><stop offset="1" stop-color="#f6f3ee" stop-opacity="0"/></radialGradient>"""]
    body = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="url(#sky)"/>',
            '<circle cx="1330" cy="430" r="420" fill="url(#sun)"/>']

    for number, (level, height, frequency, crest, foot) in enumerate(RIDGES):
        top = (level - height) / HEIGHT
        defs.append(f'<linearGradient id="ridge{number}" gradientUnits="userSpaceOnUse" x1="0" x2="0" y1="{top * HEIGHT:.0f}" '
                    f'y2="{level + 190}"><stop offset="0" stop-color="{crest}"/><stop offset="1" stop-color="{foot}"/></linearGradient>')
        points = ridge(rng, level, height, frequency)
        if number == len(RIDGES) - 1:
            # The house stands on the highest place of the nearest ridge.
            x, y = min((p for p in points if 200 < p[0] < WIDTH - 200), key=lambda p: p[1])
            body.append(house(x, y))
        body.append(polygon(points, f"url(#ridge{number})"))
        if number < len(RIDGES) - 1:
            body.append(clouds(rng, level + 105, 18, 0.62 + 0.06 * number))

    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">')
    print("<defs>", *defs, "</defs>", *body, "</svg>", sep="\n")


main()
