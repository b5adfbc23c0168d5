"""Curves as SVG, readable on light and dark pages."""

import html
import math

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 120, 40, 52

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #333 }
  .title { font-size: 14px; font-weight: 600 }
  .axis { stroke: #888; fill: none }
  .grid { stroke: #888; stroke-opacity: .25; fill: none }
  .line { fill: none; stroke-width: 2 }
  .s0 { stroke: #1668c7; fill: #1668c7 } .s1 { stroke: #c2570c; fill: #c2570c } .s2 { stroke: #3b7d23; fill: #3b7d23 }
  .s3 { stroke: #777; fill: #777 }
  .line.s0, .line.s1, .line.s2, .line.s3 { fill: none }
  .name { stroke: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd }
    .s0 { stroke: #6cb0ff; fill: #6cb0ff } .s1 { stroke: #ffa45c; fill: #ffa45c } .s2 { stroke: #8fd672; fill: #8fd672 }
    .s3 { stroke: #aaa; fill: #aaa }
  }
"""


def plot(title, across, up, series):
    """`series` are names with points; both axes are logarithmic, so a line that rises by 45° is linear growth."""
    series = [(name, [(x, y) for x, y in points if y > 0 and not math.isnan(y)]) for name, points in series]
    series = [(name, points) for name, points in series if points]
    if not series:
        return None
    xs = [x for _, points in series for x, _ in points]
    ys = [y for _, points in series for _, y in points]
    left, right = spread(xs)
    low, high = spread(ys)
    place_x = lambda x: LEFT + (math.log10(x) - left) / (right - left) * (WIDTH - LEFT - RIGHT)
    place_y = lambda y: HEIGHT - BOTTOM - (math.log10(y) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
           f"<title>{html.escape(title)}</title><style>{STYLE}</style>",
           f'<text class="title" x="{LEFT}" y="22">{html.escape(title)}</text>']
    for y in ticks(low, high):
        out.append(f'<path class="grid" d="M{LEFT} {place_y(y):.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{place_y(y) + 4:.1f}" text-anchor="end">{label(y)}</text>')
    for x in sorted(set(xs)):
        out.append(f'<path class="grid" d="M{place_x(x):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        out.append(f'<text x="{place_x(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label(x)}</text>')
    out.append(f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    middle = f'text-anchor="middle">{html.escape(across)}</text>'
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" {middle}')
    middle = f'text-anchor="middle">{html.escape(up)}</text>'
    out.append(f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" {middle}')
    # Names stand at the ends of their lines, moved apart where those meet.
    names = sorted((place_y(points[-1][1]), number) for number, (_, points) in enumerate(series))
    lowest = -math.inf
    for height, number in names:
        name, points = series[number]
        path = "L".join(f"{place_x(x):.1f} {place_y(y):.1f}" for x, y in points)
        out.append(f'<path class="line s{number % 4}" d="M{path}"/>')
        out += [f'<circle class="s{number % 4}" cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3"/>' for x, y in points]
        lowest = max(height, lowest + 15)
        place = f'x="{WIDTH - RIGHT + 8}" y="{lowest + 4:.1f}"'
        out.append(f'<text class="name s{number % 4}" {place}>{html.escape(name)}</text>')
    return "\n".join([*out, "</svg>", ""])


def spread(values):
    """The axis in powers of ten, with room on both sides, never less than one of them."""
    low, high = math.log10(min(values)) - 0.1, math.log10(max(values)) + 0.1
    missing = max(0.0, 1.0 - (high - low)) / 2
    return low - missing, high + missing


def ticks(low, high):
    """Round values on an axis: 1, 2 and 5 of each power of ten, or fewer where that would be many."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    return [step * 10.0**power for power in powers for step in steps if low <= math.log10(step * 10.0**power) <= high]


def label(value):
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= 10 * unit:
            return f"{value / unit:g}{name}"
    return f"{value:,g}"
