"""latency: from damage to the websocket, from a key to its event, and from a key in the page to the pixel it changes."""

import statistics

from figures import Figure, Missing, image, json_lines, program


def proxy():
    """the proxy between a machine and a viewer that do nothing else"""
    promised = ("damage_to_socket_ms", "key_to_event_ms")
    names = {f"latency.{what}.{percentile}" for what in promised for percentile in ("p50", "p99")}
    lines = json_lines(["cargo", "bench", "--locked", "-p", "yunju-vnc-proxy", "--bench", "latency"], 1800)
    if missing := names - {line["name"] for line in lines}:
        raise Missing(f"the bench printed no {', '.join(sorted(missing))}")
    for line in lines:
        yield Figure(line["name"], line["value"], line["unit"], line["n"])


def pixel():
    """key in the page to pixel in Chromium, the card guest and TigerVNC in turns"""
    for name in ("yunju", "yunju-vmm", "yunju-vnc-proxy"):
        program(name)
    image("card")
    ours, peer = json_lines(["node", "tests/bench/pixel/run.mjs"], 600)
    percentiles = [statistics.quantiles(found["times"], n=100) for found in (ours, peer)]
    for percent in (50, 95):
        yield Figure(f"latency.key_to_pixel_ms.p{percent}", percentiles[0][percent - 1], "ms", len(ours["times"]),
                     peer["monitor"], percentiles[1][percent - 1], "native, card guest")


parts = [proxy, pixel]
