"""stream: what pictures cost on the way to a viewer, the same workloads on our proxy and on TigerVNC's Xvnc."""

from figures import Figure, Missing, json_lines

WORKLOADS = ("idle", "type", "scroll", "move", "video720", "video", "sharp")
FRAMES_PER_SECOND = 30


def per_second(run):
    return run["bytes"] / run["seconds"] / 1e3


def bits_per_pixel(run):
    """Of the pixels of each step that the viewer was shown; a slow server shows several steps at once."""
    return run["bytes"] * 8 / (run["pixels"] * min(run["updates"], run["steps"]))


def of_video(run):
    """MB/s at the video's own rate, whatever share of its pictures the loaded host let through."""
    return run["bytes"] / run["shown"] * FRAMES_PER_SECOND / 1e6


def cpu_ms(count):
    return lambda run: run["cpu_s"] * 1e3 / max(run[count], 1)


def figures():
    """the proxy and Xvnc with the same pixels and the same viewer, six workloads, and ten viewers of one video"""
    lines = json_lines(["cargo", "bench", "--locked", "-p", "yunju-vnc-proxy", "--bench", "stream"], 3600)
    ours, peers = {}, {}
    for line in lines:
        key = f"viewers{line['viewers']}" if line["workload"] == "viewers" else line["workload"]
        (ours if line["server"] == "yunju" else peers)[key] = line
    wanted = {*WORKLOADS, "viewers1", "viewers10"}
    if missing := wanted - set(ours) | (set(WORKLOADS) - {"sharp"}) - set(peers):
        raise Missing(f"the bench measured no {', '.join(sorted(missing))}")

    def figure(name, workload, unit, value, count="updates"):
        peer = peers.get(workload)
        return Figure(f"stream.{name}", value(ours[workload]), unit, ours[workload][count],
                      peer and peer["server"], peer and value(peer), "native")

    yield figure("idle.kb_s", "idle", "KB/s", per_second)
    yield figure("idle.cpu_percent", "idle", "%", lambda run: run["cpu_s"] / run["seconds"] * 100)
    yield figure("type.kb_s", "type", "KB/s", per_second)
    yield figure("type.cpu_ms_update", "type", "ms", cpu_ms("updates"))
    yield figure("scroll.bpp", "scroll", "bit", bits_per_pixel)
    yield figure("scroll.cpu_ms_update", "scroll", "ms", cpu_ms("updates"))
    yield figure("move.bpp", "move", "bit", bits_per_pixel)
    yield figure("move.cpu_ms_update", "move", "ms", cpu_ms("updates"))
    yield figure("video720.bpp", "video720", "bit", lambda run: run["bytes"] * 8 / (run["pixels"] * run["shown"]), "shown")
    yield figure("video720.psnr_db", "video720", "dB", lambda run: run["psnr_db"], "shown")
    for name, workload in (("video", "video"), ("video.sharp", "sharp")):
        yield figure(f"{name}.mb_s", workload, "MB/s", of_video, "shown")
        yield figure(f"{name}.cpu_ms_frame", workload, "ms", cpu_ms("shown"), "shown")
        yield figure(f"{name}.psnr_db", workload, "dB", lambda run: run["psnr_db"], "shown")
    one, ten = ours["viewers1"], ours["viewers10"]
    ratio = (ten["cpu_s"] / ten["seconds"]) / (one["cpu_s"] / one["seconds"])
    yield Figure("stream.viewers10.cpu_ratio", ratio, "", ten["frames"])
    yield Figure("stream.proxy_mib", max(ours["video"]["private_mib"], one["private_mib"]), "MiB", ours["video"]["updates"])


parts = [figures]
