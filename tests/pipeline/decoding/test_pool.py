"""Decode children: order, deadlines, retries, and children that die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynaprop.pipeline.decoding import process as decode_process
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import DynapropError
from dynaprop.pipeline.video.container import VideoError
from dynaprop.pipeline.video.decoders import read_frames, resize_frame
from dynaprop.pipeline.video.frame_folder import FrameFolder
from dynaprop.pipeline.video.probe import Probe
from dynaprop.pipeline.video.request import FrameRequest
from tests.pipeline.corpus import CASES
from tests.pipeline.video.test_decoders import request
from tests.pipeline.videos import write_video


@pytest.fixture
def pool():
    with DecodePool(workers=2, deadline=20) as pool:
        yield pool


def test_probes_and_frames_come_in_order(tmp_path, pool):
    paths = [write_video(tmp_path / f"{i}.mp4", frames=20 + i, seed=i) for i in range(6)]
    probes = list(pool.probe(map(str, paths)))
    assert [probe.n_frames for probe in probes if isinstance(probe, Probe)] == [20, 21, 22, 23, 24, 25]
    requests, decoders = zip(*(request(path) for path in paths), strict=True)
    for wanted, stream in zip(requests, pool.decode(requests, [16, 32], decoders), strict=True):
        small, large = zip(*(frames for _, frames in stream), strict=True)
        native = [frame for _, frame in read_frames(wanted, "full")]
        np.testing.assert_array_equal(small, [resize_frame(frame, 16) for frame in native])
        np.testing.assert_array_equal(large, [resize_frame(frame, 32) for frame in native])
        assert stream.outcome.error is None
        assert (stream.outcome.decoder, stream.outcome.attempts) == ("pyav", 1)
    assert pool.decoded_videos == 6


def test_a_bad_file_is_an_answer_not_an_end(tmp_path, pool):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    good = write_video(tmp_path / "good.mp4")
    bad, fine = pool.probe([str(tmp_path / "bad.mp4"), str(good)])
    assert isinstance(bad, VideoError)
    assert isinstance(fine, Probe)


def test_decord_that_fails_is_followed_by_pyav(tmp_path, pool):
    """In open groups decord gives other frames than PyAV, which is the one that counts."""
    CASES["open-gop.mp4"].build(tmp_path / "a.mp4")
    wanted, _ = request(tmp_path / "a.mp4", min_clips=20)
    (stream,) = pool.decode([wanted], [16], ["decord"])
    assert sorted({clip for clip, _ in stream}) == list(range(len(wanted.frames)))
    assert stream.outcome.error is None
    assert (stream.outcome.decoder, stream.outcome.attempts) == ("pyav", 2)


def fake_children(monkeypatch, tmp_path, body: str) -> None:
    """Run other code instead of the decode child."""
    script = tmp_path / "child.py"
    hello = "import struct, sys\nsys.stdout.buffer.write(struct.pack('<cI', b'A', 0)); sys.stdout.flush()\n"
    script.write_text(hello + body)
    real = decode_process.subprocess.Popen
    monkeypatch.setattr(
        decode_process.subprocess, "Popen", lambda _command, **options: real([sys.executable, str(script)], **options)
    )


def test_a_child_that_hangs_is_killed_and_the_run_goes_on(tmp_path, monkeypatch):
    wanted, _ = request(write_video(tmp_path / "a.mp4"))
    fake_children(monkeypatch, tmp_path, "import time; time.sleep(600)")
    with DecodePool(workers=1, deadline=0.3) as pool:
        for stream, attempts in zip(pool.decode([wanted, wanted], [16], ["decord", "pyav"]), (2, 1), strict=True):
            assert list(stream) == []
            assert stream.outcome.error.kind == "timeout"
            assert (stream.outcome.decoder, stream.outcome.attempts) == ("pyav", attempts)
        (probe,) = pool.probe(["x"])
        assert probe.kind == "timeout"


def test_a_pool_that_is_closed_while_a_child_starts_starts_no_other_one(tmp_path, monkeypatch):
    """The child is killed before its first sign of life, as one from outside would be, which is tried again."""
    started = tmp_path / "started"
    fake_children(monkeypatch, tmp_path, "import time; time.sleep(600)")
    script = tmp_path / "child.py"
    script.write_text(f"open({str(started)!r}, 'a').write('x'); import time; time.sleep(600)")
    wanted, _ = request(write_video(tmp_path / "a.mp4"))
    pool = DecodePool(workers=1, deadline=20)
    next(pool.decode([wanted], [16], ["pyav"]))
    while not (started.exists() and started.read_text()):
        time.sleep(0.01)
    pool.close()
    assert started.read_text() == "x"


def log_of_children(monkeypatch, tmp_path, end: str) -> Path:
    """Children that note the decoder they are asked to use, give the first two clips and come to an end."""
    log = tmp_path / "log"
    fake_children(
        monkeypatch,
        tmp_path,
        "import json, os, sys\n"
        f"open({str(log)!r}, 'a').write(json.loads(sys.stdin.readline())['decoder'] + ' ')\n"
        "for clip in range(2):\n"
        "    sys.stdout.buffer.write(struct.pack('<cII', b'F', 4 + 768, clip) + bytes(768))\n"
        "sys.stdout.flush()\n" + end,
    )
    return log


@pytest.mark.parametrize(
    ("number", "decoders", "clips"),
    [
        (signal.SIGSEGV, "decord decord pyav pyav", [0, 1, 0, 1]),  # a decoder's own fault, twice: another one
        (signal.SIGKILL, "decord decord decord decord", [0, 1]),  # anybody's fault: the same one, some times
    ],
)
def test_a_child_lost_to_a_signal(tmp_path, monkeypatch, number, decoders, clips):
    wanted, _ = request(write_video(tmp_path / "a.mp4"))
    log = log_of_children(monkeypatch, tmp_path, f"os.kill(os.getpid(), {int(number)})")
    with DecodePool(workers=1, deadline=20) as pool:
        (stream,) = pool.decode([wanted], [16], ["decord"])
        assert [clip for clip, _ in stream] == clips
    assert log.read_text().split() == decoders.split()
    assert stream.outcome.error.kind == "crash"
    assert number.name in stream.outcome.error.detail
    assert stream.outcome.attempts == 4


def test_a_killed_child_changes_neither_frames_nor_decoder(tmp_path, pool):
    """What was delivered is not delivered again: the batches behind are filled as if nothing had happened."""
    wanted, decoder = request(write_video(tmp_path / "a.mp4", frames=300, size=(640, 480)), min_clips=200)
    (undisturbed,) = pool.decode([wanted], [16], [decoder])
    expected = [(clip, frames[0].copy()) for clip, frames in undisturbed]
    (stream,) = pool.decode([wanted], [16], [decoder])
    seen = []
    for clip, frames in stream:
        if clip in (0, 100):
            for child in pool._all:
                if child.pid is not None:
                    os.kill(child.pid, signal.SIGKILL)
        seen.append((clip, frames[0].copy()))
    assert [clip for clip, _ in seen] == [clip for clip, _ in expected] == list(range(200))
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(seen, expected, strict=True))
    assert stream.outcome.error is None
    assert stream.outcome.decoder == decoder
    assert stream.outcome.attempts > 1


def test_a_video_that_needs_too_much_memory_is_named_and_the_child_goes_on(tmp_path):
    """A picture of 192 MiB, since libavcodec often takes a refused allocation for invalid data."""
    Image.new("L", (8000, 8000)).save(tmp_path / "1.png")
    folder = FrameFolder(template="{}.png", first=1, fps=1)
    wanted = FrameRequest(str(tmp_path), np.array([0]), np.array([0.0]), 0.0, True, folder)
    other, decoder = request(write_video(tmp_path / "small.mp4"))
    with DecodePool(workers=1, deadline=60, memory=384 * 2**20) as pool:
        large, good = pool.decode([wanted, other], [16], ["frames", decoder])
        assert list(large) == []
        assert large.outcome.error.kind == "memory"
        assert "0.375 GiB" in large.outcome.error.detail
        assert len(list(good)) == len(other.frames)
    with DecodePool(workers=1, deadline=60) as pool:
        (large,) = pool.decode([wanted], [16], ["frames"])
        assert len(list(large)) == 1


def test_modules_in_the_current_folder_are_not_imported(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4")
    (tmp_path / "json.py").write_text("raise SystemExit")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    with DecodePool(workers=1, deadline=0.1) as pool:  # a short deadline is not one for starting
        (probe,) = pool.probe([str(path)])
        assert isinstance(probe, Probe)


def test_a_child_that_hangs_ends_with_its_parent(tmp_path):
    """Nobody reads its stdin while a decoder hangs: the closed pipe is not enough."""
    hanging = (
        "from dynaprop.pipeline.decoding.child import end_with_parent; import time; end_with_parent(); time.sleep(600)"
    )
    code = (
        "import subprocess, sys, time\n"
        f"print(subprocess.Popen([sys.executable, '-c', {hanging!r}]).pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    time.sleep(2)
    assert alive(child)
    parent.kill()
    parent.wait()
    wait_for_end([child])


def test_children_end_when_their_parent_is_killed(tmp_path):
    """SIGKILL leaves the parent no chance to clean up: the closed pipe must be enough."""
    path = write_video(tmp_path / "a.mp4")
    code = (
        "from dynaprop.pipeline.decoding.pool import DecodePool\n"
        "import sys, time\n"
        f"pool = DecodePool(workers=2); list(pool.probe([{str(path)!r}] * 4))\n"
        "print(*[child.pid for child in pool._all], flush=True); time.sleep(60)"
    )
    parent = decode_process.subprocess.Popen([sys.executable, "-c", code], stdout=decode_process.subprocess.PIPE)
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    assert all(alive(pid) for pid in children)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for_end(children)


def wait_for_end(children: list[int]) -> None:
    end = time.monotonic() + 20
    while any(alive(pid) for pid in children) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in children)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_child_that_cannot_start_is_nobodys_fault(tmp_path, monkeypatch):
    """No video may be marked as failed because a process could not be had."""
    wanted, _ = request(write_video(tmp_path / "a.mp4"))

    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(decode_process.subprocess, "Popen", refuse)
    with DecodePool(workers=1) as pool:
        (stream,) = pool.decode([wanted], [16], ["pyav"])
        with pytest.raises(BlockingIOError):
            list(stream)
    monkeypatch.undo()
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: real([sys.executable, "-c", "1 / 0"], **options))
    with DecodePool(workers=1) as pool:
        (stream,) = pool.decode([wanted], [16], ["pyav"])
        with pytest.raises(DynapropError, match="cannot be started"):
            list(stream)


def test_memory_is_bounded_while_the_reader_waits(tmp_path):
    """Decoding ahead, this video would be 2.4 GB."""
    path = write_video(tmp_path / "long.mp4", frames=900, fps=30, size=(1280, 720), options={"preset": "ultrafast"})
    wanted, decoder = request(path, min_clips=400)
    assert decoder == "pyav"
    with DecodePool(workers=1, deadline=60) as pool:
        (stream,) = pool.decode([wanted], [112, 224], [decoder])
        frames = iter(stream)
        next(frames)
        time.sleep(2)
        assert resident(pool._all[0].pid) < 250 * 2**20
        assert len(list(frames)) == len(wanted.frames) - 1


def resident(pid: int) -> int:
    """Bytes of memory that a process has in RAM."""
    with open(f"/proc/{pid}/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_signs_of_life_keep_a_slow_child_alive(tmp_path, monkeypatch):
    """A long file whose next clip is far away: 1.5 s without a frame are no hang at a deadline of 1 s."""
    wanted, _ = request(write_video(tmp_path / "a.mp4"))
    fake_children(
        monkeypatch,
        tmp_path,
        "import struct, sys, time\n"
        "sys.stdin.readline()\n"
        "for _ in range(5):\n"
        "    time.sleep(0.3); sys.stdout.buffer.write(struct.pack('<cI', b'A', 0)); sys.stdout.flush()\n"
        "sys.stdout.buffer.write(struct.pack('<cI', b'D', 2) + b'{}')",
    )
    with DecodePool(workers=1, deadline=1) as pool:
        (stream,) = pool.decode([wanted], [16], ["pyav"])
        assert list(stream) == []
    assert stream.outcome.error is None
