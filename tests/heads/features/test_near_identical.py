"""Pairs of videos by their features, against a plain computation one clip after the other."""

import numpy as np
import pytest
import torch

from dynaprop.heads.features import near_identical
from dynaprop.heads.features.duplicates import find_duplicates
from dynaprop.heads.features.loaded import FeatureSplit
from dynaprop.heads.features.near_identical import THRESHOLD, Comparison, clips_compared
from dynaprop.pipeline.store.duplicates import MOST_LISTED


def split_of(videos: list[torch.Tensor]) -> FeatureSplit:
    """Videos as the store has them, with rows of others between and timestamps of 0, 1, ... seconds."""
    width = videos[0].shape[1] if videos else 8
    gap = torch.full((2, width), torch.nan)
    n_clips = np.array([len(video) for video in videos], np.int64)
    starts = np.cumsum(n_clips + 2) - n_clips
    features = torch.cat([torch.cat([gap, video]) for video in videos]) if videos else torch.empty(0, width)
    times = [np.concatenate([[-1.0, -1.0], np.arange(n)]) for n in n_clips]
    return FeatureSplit(
        video_ids=tuple(f"v{index:03d}" for index in range(len(videos))),
        labels=((0,),) * len(videos),
        class_names=("a",),
        starts=starts,
        n_clips=n_clips,
        student=features[:, :1].half(),
        teacher=features.half(),
        timestamps=np.concatenate(times) if times else np.array([]),
    )


def made_up(count: int, width: int = 40, seed: int = 0) -> list[torch.Tensor]:
    """Videos of 1 to 9 clips, each around a scene of its own; of the last two one is a part of the other."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 10, (count,), generator=draw)
    scenes = torch.rand(count, 1, width, generator=draw) * 3
    videos = [scene + 0.3 * torch.randn(n, width, generator=draw) for scene, n in zip(scenes, lengths, strict=True)]
    long = scenes[-1] + torch.randn(9, width, generator=draw)
    return [*videos[:-2], long, long[3:6] + 0.01 * torch.randn(3, width, generator=draw)]


def slowly(split: FeatureSplit) -> np.ndarray:
    """Cosine of every two videos, by numpy in double precision."""
    clips = [split.teacher[s : s + n].double().numpy() for s, n in zip(split.starts, split.n_clips, strict=True)]
    means = np.stack([video.mean(0) for video in clips])
    mean = means.mean(0)
    variances, axes = np.linalg.eigh(np.cov(means.T, bias=True))
    kept = variances > 1e-3 * variances.max()
    evened = [(video - mean) @ axes[:, kept] / np.sqrt(np.sqrt(variances[kept])) for video in clips]
    cosines = np.eye(len(clips))
    for i, one in enumerate(evened):
        for j, other in enumerate(evened):
            best = [max(a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in other) for a in one]
            cosines[i, j] = np.mean(best)
    return np.maximum(cosines, cosines.T)


@pytest.mark.parametrize("rows", [4096, 16, 1])
def test_cosines_are_those_of_a_plain_computation(rows, monkeypatch):
    monkeypatch.setattr(near_identical, "_ROWS", rows)
    split = split_of(made_up(25))
    expected = slowly(split)
    pairs = Comparison(split).pairs(threshold=-1.0)
    assert sorted(zip(pairs.first, pairs.second, strict=True)) == [(i, j) for i in range(25) for j in range(i + 1, 25)]
    np.testing.assert_allclose(pairs.cosine, expected[pairs.first, pairs.second], atol=2e-3)
    assert (np.diff(pairs.cosine) <= 0).all()
    assert (pairs.first[0], pairs.second[0]) == (23, 24), "a part is found in the whole"
    few = Comparison(split).pairs(threshold=0.3)
    assert len(few.first) == (expected[np.triu_indices(25, 1)] >= 0.3).sum()


def test_pairs_within_a_part_of_the_split_are_passed_over():
    split = split_of(made_up(25))
    every = Comparison(split).pairs(threshold=-1.0)
    parts = np.arange(25) % 3
    across = Comparison(split).pairs(threshold=-1.0, parts=parts)
    expected = [pair for pair in zip(every.first, every.second, strict=True) if parts[pair[0]] != parts[pair[1]]]
    assert list(zip(across.first, across.second, strict=True)) == expected


def test_the_clips_that_are_most_alike_are_named():
    videos = made_up(25)
    a, b = Comparison(split_of(videos)).most_alike(23, 24)
    assert a == b + 3


@pytest.mark.parametrize("videos", [[], [torch.ones(3, 8)], [torch.ones(3, 8)] * 2, [torch.zeros(1, 8)] * 3])
def test_nothing_to_tell_apart(videos):
    assert len(Comparison(split_of(videos)).pairs().first) == 0
    assert find_duplicates(split_of(videos), {}).n_near == 0


def test_of_too_many_clips_fewer_are_compared_and_that_is_said(monkeypatch):
    split = split_of(made_up(25))
    assert clips_compared(split) is None
    clips = int(split.n_clips.sum())
    monkeypatch.setattr(near_identical, "COMPARISONS", (clips - 1) ** 2)
    fewer = clips_compared(split)
    assert fewer is not None and 0 < fewer < 9
    assert np.minimum(split.n_clips, fewer).sum() < clips
    found = find_duplicates(split, {})
    assert (found.clips, found.unknown) == (fewer, "")
    monkeypatch.setattr(near_identical, "COMPARISONS", 25**2 - 1)
    found = find_duplicates(split, {"v000": "x", "v001": "x"})
    assert (found.n_near, found.n_same) == (None, 1)
    assert found.unknown == "25 videos are too many to compare"


def test_the_same_file_is_not_called_near_identical_as_well():
    videos = made_up(25)
    split = split_of([*videos, videos[0], videos[1]])
    contents = {video: video for video in split.video_ids} | {"v025": "v000"}
    parts = {video: int(video >= "v024") for video in split.video_ids}
    found = find_duplicates(split, contents, parts=parts, features="key")
    assert [(one.first, one.second) for one in found.of("same file")] == [("v000", "v025")]
    near = {(one.first, one.second) for one in found.of("near-identical")}
    assert {("v001", "v026"), ("v023", "v024")} <= near
    assert ("v000", "v025") not in near
    assert all(parts[first] == 0 and parts[second] == 1 for first, second in near)
    assert all(one.cosine >= THRESHOLD for one in found.of("near-identical"))
    assert (found.n_same, found.n_near, found.threshold, found.features) == (1, len(near), THRESHOLD, "key")
    assert len(found.listed) < MOST_LISTED
