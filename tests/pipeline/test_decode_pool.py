"""Decode children: order, deadlines, retries, and children that die."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pipeline import decode_pool
from pipeline.decode import read_frames, resize_frame
from pipeline.decode_pool import DecodePool
from pipeline.errors import DynapropError
from pipeline.probe import Probe
from pipeline.video import VideoError
from tests.pipeline.test_decode import request
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
        native = [frame for _, frame in read_frames(wanted, "decord")]
        np.testing.assert_array_equal(small, [resize_frame(frame, 16) for frame in native])
        np.testing.assert_array_equal(large, [resize_frame(frame, 32) for frame in native])
        assert stream.outcome.error is None
        assert (stream.outcome.decoder, stream.outcome.attempts) == ("decord", 1)
    assert pool.decoded_videos == 6


def test_a_bad_file_is_an_answer_not_an_end(tmp_path, pool):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    good = write_video(tmp_path / "good.mp4")
    bad, fine = pool.probe([str(tmp_path / "bad.mp4"), str(good)])
    assert isinstance(bad, VideoError)
    assert isinstance(fine, Probe)


def test_decord_that_fails_is_followed_by_pyav(tmp_path, pool):
    """The probe's count is wrong by one: decord contradicts it, PyAV finds every frame by its time."""
    wanted, _ = request(write_video(tmp_path / "a.mp4"))
    wanted = type(wanted)(**{**vars(wanted), "n_frames": 31})
    (stream,) = pool.decode([wanted], [16], ["decord"])
    assert [clip for clip, _ in stream] == list(range(len(wanted.frames)))
    assert stream.outcome.error is None
    assert (stream.outcome.decoder, stream.outcome.attempts) == ("pyav", 2)


def fake_children(monkeypatch, tmp_path, body: str) -> None:
    """Run other code instead of the decode child."""
    script = tmp_path / "child.py"
    hello = "import struct, sys\nsys.stdout.buffer.write(struct.pack('<cI', b'A', 0)); sys.stdout.flush()\n"
    script.write_text(hello + body)
    real = decode_pool.subprocess.Popen
    monkeypatch.setattr(
        decode_pool.subprocess, "Popen", lambda _command, **options: real([sys.executable, str(script)], **options)
    )


def test_a_child_that_hangs_is_killed_and_the_run_goes_on(tmp_path, monkeypatch):
    wanted, _ = request(write_video(tmp_path / "a.mp4"))
    fake_children(monkeypatch, tmp_path, "import time; time.sleep(600)")
    with DecodePool(workers=1, deadline=0.3) as pool:
        for stream in pool.decode([wanted, wanted], [16], ["decord", "pyav"]):
            assert list(stream) == []
            assert stream.outcome.error.kind == "timeout"
            assert stream.outcome.attempts == 1
        (probe,) = pool.probe(["x"])
        assert probe.kind == "timeout"


def test_a_child_that_dies_is_tried_again_with_the_same_decoder_first(tmp_path, monkeypatch):
    wanted, _ = request(write_video(tmp_path / "a.mp4"))
    log = tmp_path / "log"
    fake_children(
        monkeypatch,
        tmp_path,
        "import json, os, sys\n"
        f"open({str(log)!r}, 'a').write(json.loads(sys.stdin.readline())['decoder'] + ' ')\n"
        "os.kill(os.getpid(), 9)",
    )
    with DecodePool(workers=1, deadline=20) as pool:
        (stream,) = pool.decode([wanted], [16], ["decord"])
        assert list(stream) == []
    assert stream.outcome.error.kind == "crash"
    assert log.read_text().split() == ["decord", "decord", "pyav", "pyav"]


def test_children_end_when_their_parent_is_killed(tmp_path):
    """SIGKILL leaves the parent no chance to clean up: the closed pipe must be enough."""
    path = write_video(tmp_path / "a.mp4")
    code = (
        "from pipeline.decode_pool import DecodePool\n"
        "import sys, time\n"
        f"pool = DecodePool(workers=2); list(pool.probe([{str(path)!r}] * 4))\n"
        "print(*[child._process.pid for child in pool._all], flush=True); time.sleep(60)"
    )
    parent = decode_pool.subprocess.Popen([sys.executable, "-c", code], stdout=decode_pool.subprocess.PIPE)
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    assert all(alive(pid) for pid in children)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
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

    monkeypatch.setattr(decode_pool.subprocess, "Popen", refuse)
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
    """decord would decode all 2.4 GB of this video ahead; it is not asked to."""
    path = write_video(tmp_path / "long.mp4", frames=900, fps=30, size=(1280, 720), options={"preset": "ultrafast"})
    wanted, decoder = request(path, min_clips=400)
    assert decoder == "pyav"
    with DecodePool(workers=1, deadline=60) as pool:
        (stream,) = pool.decode([wanted], [112, 224], [decoder])
        frames = iter(stream)
        next(frames)
        time.sleep(2)
        assert resident(pool._all[0]._process.pid) < 250 * 2**20
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
