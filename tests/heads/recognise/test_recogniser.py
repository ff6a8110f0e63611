"""Recognising video files: the very frames, features and scores that evaluation on cached features has."""

import numpy as np
import pytest
import torch

from dynaprop.heads.evaluation.predict import predict
from dynaprop.heads.features.loaded import FeatureSplit
from dynaprop.heads.features.sampling import inference_clips
from dynaprop.heads.model.cost import gmacs_heads
from dynaprop.heads.recognise.recogniser import BRANCHES, Recogniser, load_export
from dynaprop.heads.report.prediction_chart import prediction_chart
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.backbones.weights import Weights
from dynaprop.pipeline.clips import clip_grid
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.video.decoders import resize_frame
from tests.heads.tiny_model import CLASSES, GRID, backbones, counts, heads, write_tiny
from tests.pipeline.videos import all_frames, write_video

FPS = 10
LENGTHS = (16, 33, 5, 230, 1)
"""Frames: clips that get shorter, the same, as many as frames, one a second, a single one for both branches."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"{n}.mp4", frames=n, fps=FPS, seed=n) for n in LENGTHS]


@pytest.fixture(scope="module")
def reference(videos):
    """What extraction would cache of the videos, made with PyAV's plain loop."""
    features: dict[str, list[np.ndarray]] = {branch: [] for branch in BRANCHES}
    grids = []
    for video in videos:
        frames = all_frames(video)
        rule = GRID.model_dump(exclude={"min_share"})
        grids.append(clip_grid(np.arange(len(frames)) / FPS, len(frames) / FPS, **rule))
        for branch, one in backbones().items():
            network = FrameBackbone(key=one.key, weights=Weights("random", None, one.key.weights))
            squares = np.stack([resize_frame(frames[index], one.key.size) for index in grids[-1].frames])
            features[branch].append(network.features(squares).astype(np.float16))
    n_clips = np.array([len(grid) for grid in grids])
    return FeatureSplit(
        video_ids=tuple(map(str, videos)),
        labels=((0,),) * len(videos),
        class_names=CLASSES,
        starts=np.cumsum(n_clips) - n_clips,
        n_clips=n_clips,
        student=torch.from_numpy(np.concatenate(features["student"])),
        teacher=torch.from_numpy(np.concatenate(features["teacher"])),
        timestamps=np.concatenate([grid.timestamps for grid in grids]),
    )


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    with load_export(write_tiny(tmp_path_factory.mktemp("models") / "model"), device="cpu", workers=2) as made:
        yield made


@pytest.mark.parametrize("kind", ["dynamic", "static", "student", "teacher"])
def test_scores_are_those_of_cached_features(tmp_path, videos, reference, kind):
    expected = predict(heads(kind), reference, **counts(kind))
    with load_export(write_tiny(tmp_path / "model", kind=kind), device="cpu", workers=1) as recogniser:
        found = recogniser.predict(videos)
    assert np.ptp(expected.probabilities, axis=0).max() > 0.01  # else any frames would do
    for video, one in enumerate(found):
        assert one.error is None, one.error
        np.testing.assert_allclose(one.scores, expected.probabilities[video], atol=2e-3)
        assert one.frames.get("student", 0) == expected.n_s_used[video]
        assert one.frames.get("teacher", 0) == expected.n_t_used[video]
        assert one.label == CLASSES[int(one.scores.argmax())]
        assert (one.attention is None) == (kind != "dynamic")
        if video in (1, 4):  # several frames, and a single one
            chart = prediction_chart(one, CLASSES)
            assert chart.png.startswith(b"\x89PNG") and one.label in chart.alt
            assert len(chart.data) == sum(one.frames.values())


def test_features_are_those_of_the_cache_at_inferences_clips(recogniser, videos, reference):
    for video, one in enumerate(recogniser.features(videos)):
        start = reference.starts[video]
        both = inference_clips(int(reference.n_clips[video]), n_s=6, n_t=2)
        for found, cached, clips in zip(
            (one.student, one.teacher), (reference.student, reference.teacher), both, strict=True
        ):
            assert found.features.dtype == np.float16
            np.testing.assert_allclose(found.features, cached[start + clips].numpy(), rtol=2e-3, atol=2e-3)
            np.testing.assert_allclose(found.timestamps, reference.timestamps[start + clips], atol=1e-3)


def test_together_is_as_alone_and_the_order_is_kept(recogniser, videos):
    together = recogniser.predict([*videos, *reversed(videos)])
    assert [one.video for one in together] == [str(video) for video in [*videos, *reversed(videos)]]
    for video, one in zip(videos, together, strict=False):
        (alone,) = recogniser.predict([video])
        np.testing.assert_allclose(one.scores, alone.scores, atol=1e-5)


def test_a_prediction_is_complete(recogniser, videos):
    (one,) = recogniser.predict([videos[1]], top=2)
    assert len(one.top) == 2 and one.top[0][1] >= one.top[1][1]
    assert one.scores.sum() == pytest.approx(1)
    for track, n in ((one.student, 6), (one.teacher, 2)):
        assert track.timestamps.shape == (n,) and (np.diff(track.timestamps) > 0).all()
        np.testing.assert_allclose(track.probabilities.sum(axis=1), 1)
    assert one.attention.shape == (6, 2)
    np.testing.assert_allclose(one.attention.sum(axis=1), 1, rtol=1e-5)
    of_frames = {branch: backbone.gmacs for branch, backbone in backbones().items()}
    spent = 6 * of_frames["student"] + 2 * of_frames["teacher"] + gmacs_heads(heads(), n_s=6, n_t=2)
    assert one.gmacs == pytest.approx(spent)
    stages = vars(one.milliseconds)
    assert list(stages) == ["open", "decode", "student", "teacher", "heads"]
    assert all(value > 0 for value in stages.values())
    assert one.milliseconds.total == pytest.approx(sum(stages.values()))


def test_a_short_video_costs_what_it_used(recogniser, videos):
    long, short = recogniser.predict([videos[1], videos[2]])
    assert short.frames == {"student": 4, "teacher": 1}
    assert short.gmacs < 0.7 * long.gmacs


def test_videos_that_fail_are_answers(recogniser, videos, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    paths = [tmp_path / "text.mp4", videos[0], tmp_path / "gone.mp4", tmp_path / "empty.mp4", videos[1]]
    found = recogniser.predict(paths)
    assert [one.error is None for one in found] == [False, True, False, False, True]
    assert {one.error.kind for one in found if one.error} == {"unreadable"}
    assert "No such file" in str(found[2].error)
    with pytest.raises(ValueError, match="nothing to draw"):
        prediction_chart(found[0], CLASSES)
    assert found[0].top == () and found[0].label is None and found[0].scores is None
    features = recogniser.features(paths)
    assert [one.student is None for one in features] == [True, False, True, True, False]
    assert recogniser.predict([]) == []


def test_leaving_half_way_does_no_harm(recogniser, videos):
    answers = recogniser.predictions(videos * 8)
    first = next(answers)
    answers.close()
    (again,) = recogniser.predict([first.video])
    np.testing.assert_allclose(again.scores, first.scores, atol=1e-5)


def test_heads_of_other_backbones_are_refused(recogniser):
    student, teacher = recogniser.branches.values()
    with (
        DecodePool(workers=1) as pool,
        pytest.raises(DynapropError, match=r"student features of \d+ channels, test_resnet gives"),
    ):
        Recogniser(
            heads(),
            class_names=CLASSES,
            n_s=6,
            n_t=2,
            branches={"student": teacher, "teacher": student},
            **GRID.model_dump(),
            pool=pool,
        )


def test_one_call_at_a_time_and_a_single_video_is_no_list(recogniser, videos):
    answers = recogniser.predictions(videos)
    first = next(answers)
    with pytest.raises(UsageError, match="read the predictions of the last call to their end"):
        recogniser.predict(videos)
    answers.close()
    for one in (videos[0], str(videos[0])):
        (again,) = recogniser.predict(one)
        np.testing.assert_allclose(again.scores, first.scores, atol=1e-6)  # a batch of another size rounds otherwise
    assert len(recogniser.features(videos[0])) == 1
