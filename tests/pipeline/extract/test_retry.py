"""Trying failed videos again: as often as one likes, without a store that grows."""

from pathlib import Path

import pytest

from dynaprop.pipeline.store.names import open_store
from dynaprop.pipeline.store.verify import verify_key
from dynaprop.pipeline.video.container import VideoError
from tests.pipeline.extract.test_dataset import STUDENT, TEACHER, extract, spec
from tests.pipeline.videos import write_video


def write_hurt_video(path: Path, *, seed: int = 3) -> Path:
    """Its packets are all there, so the probe counts them; the data of most frames are gone."""
    write_video(path, frames=200, size=(160, 120), seed=seed)
    data = bytearray(path.read_bytes())
    begin = data.find(b"mdat")
    data[begin + 2000 : begin + (len(data) - begin) * 3 // 4] = bytes((len(data) - begin) * 3 // 4 - 2000)
    path.write_bytes(data)
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    """Three good videos, one that no probe can read, and two that fail while they are decoded."""
    root = tmp_path / "videos"
    for name in ("a/0", "a/2", "b/1"):
        write_video(root / f"{name}.mp4", seed=ord(name[-1]))
    (root / "b" / "text.mp4").write_bytes(b"not a video")
    for name in ("a/1-hurt", "b/2-hurt"):
        write_hurt_video(root / f"{name}.mp4")
    return root


def sizes(store) -> tuple[int, int, list[int], int]:
    """Rows and shards of the manifest, rows of the arrays, files."""
    manifest = store.manifest()
    arrays = [array.shape[0] for _, array in store.group.arrays()]
    return len(manifest.table), manifest.n_shards, arrays, sum(path.is_file() for path in store.root.rglob("*"))


def good_rows(store, key: str) -> list[tuple[str, int, str]]:
    table = store.ledger(key).read().query("status == 'ok'")
    return sorted(zip(table["video_id"], table["row"], table["checksum"], strict=True))


def test_five_retries_add_nothing_after_the_first(root, tmp_path):
    dataset = spec(root).model_copy(update={"shard_rows": 64})  # all of them in one shard
    first = extract(dataset, tmp_path)
    assert (first.usable, set(first.failed)) == (3, {"a/1-hurt.mp4", "b/2-hurt.mp4", "b/text.mp4"})
    store = open_store(dataset, tmp_path)
    shards = store.manifest().n_shards
    good = {key: good_rows(store, key) for key in first.keys.values()}
    seen = []
    for _ in range(5):
        summary = extract(dataset, tmp_path, retry_failed=True)
        assert (summary.usable, summary.failed.keys(), summary.decoded) == (3, first.failed.keys(), 2)
        seen.append(sizes(open_store(dataset, tmp_path)))
    assert seen[1:] == seen[:1] * 4
    assert seen[0][1] == shards + 1  # the two lay beside good videos, which stay where they are
    for key, before in good.items():
        assert verify_key(store, key).problems == ()
        assert len(before) == 3
        assert good_rows(store, key) == before


def test_what_was_never_readable_leaves_no_row_behind(root, tmp_path):
    dataset = spec(root)
    extract(dataset, tmp_path)
    before = open_store(dataset, tmp_path).manifest().table
    extract(dataset, tmp_path, retry_failed=True)
    (root / "b" / "text.mp4").unlink()
    extract(dataset, tmp_path)
    table = open_store(dataset, tmp_path).manifest().table
    assert before["video_id"].tolist().count("b/text.mp4") == 1
    assert "b/text.mp4" not in table["video_id"].tolist()


def test_a_shard_of_failures_alone_is_written_again_in_its_place(tmp_path):
    """Twenty clips in a shard of twenty rows: nothing moves, not even the first time."""
    root = tmp_path / "videos"
    write_hurt_video(root / "a" / "hurt.mp4")
    write_video(root / "b" / "good.mp4", frames=60)
    dataset = spec(root)
    dataset = dataset.model_copy(update={"min_clips": 16, "max_clips": 16})
    first = extract(dataset, tmp_path)
    assert set(first.failed) == {"a/hurt.mp4"}
    store = open_store(dataset, tmp_path)
    before = sizes(store)
    assert before[1] == 2
    again = extract(dataset, tmp_path, retry_failed=True)
    assert (again.decoded, again.forwarded > 0) == (1, True)
    assert sizes(open_store(dataset, tmp_path)) == before


def test_a_video_that_is_good_by_now_is_extracted_in_the_rows_it_has(tmp_path, monkeypatch):
    """A failure that was the machine's: the decoder was too slow once."""
    root = tmp_path / "videos"
    for name in ("a/0", "b/1"):
        write_video(root / f"{name}.mp4", seed=ord(name[-1]))
    dataset = spec(root)
    with monkeypatch.context() as patch:
        patch.setattr("dynaprop.pipeline.decoding.pool.DecodePool._stream", _time_out)
        assert {error.kind for error in extract(dataset, tmp_path).failed.values()} == {"timeout"}
    store = open_store(dataset, tmp_path)
    before = sizes(store)
    assert extract(dataset, tmp_path).decoded == 0  # not asked for
    summary = extract(dataset, tmp_path, STUDENT, TEACHER, retry_failed=True)
    assert (summary.usable, summary.failed, summary.decoded) == (2, {}, 2)
    assert sizes(open_store(dataset, tmp_path)) == before


def _time_out(*_) -> None:
    raise VideoError("timeout", "no new frame")
