"""From video files to classes: n_s + n_t frames of a video are read, each once and at its branch's size, and scored."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

import numpy as np
import torch

from dynaprop.heads.evaluation.predict import Frames, Model, branch_widths, check_counts
from dynaprop.heads.evaluation.video_scores import VideoScores, score_videos
from dynaprop.heads.export.model_folder import Exported, read_export, while_unchanged
from dynaprop.heads.export.record import Branch
from dynaprop.heads.features.batch import gather_frames
from dynaprop.heads.features.sampling import inference_clips
from dynaprop.heads.model.cost import gmacs_heads
from dynaprop.heads.recognise.prediction import BranchFeatures, Features, FrameTrack, Milliseconds, Prediction
from dynaprop.pipeline.backbones.backbone import FrameBackbone
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.frames.sampled import SampledVideo, sample_videos
from dynaprop.pipeline.machine import resolve_device
from dynaprop.pipeline.video.container import VideoError

BRANCHES: tuple[Branch, Branch] = ("student", "teacher")

_TOGETHER = 16  # videos whose frames go through the networks together
_BATCH = 32  # frames a forward pass, at most


@dataclass(frozen=True)
class BranchNetwork:
    """One branch's network, from frames to features."""

    backbone: FrameBackbone
    gmacs: float
    """Multiply-adds of one frame, in units of 1e9."""


class Recogniser:
    """A trained model with its backbones. Use it as a context manager, or close it, to end its decode processes.

    Args:
        model: the heads.
        class_names: what the scores are of.
        n_s, n_t: frames of student and teacher; 0 for a branch that the model lacks.
        branches: the networks of the branches that the model has.
        clip_seconds, min_clips, max_clips: the clip grid that the model was trained on, see ``clip_grid``.
        min_share: see ``sample_videos``.
        device: where the heads run.
        pool: decode children, the recogniser's own from now on.

    Raises:
        DynapropError: heads, backbones and numbers of frames do not belong together.
    """

    def __init__(
        self,
        model: Model,
        *,
        class_names: Sequence[str],
        n_s: int,
        n_t: int,
        branches: Mapping[Branch, BranchNetwork],
        clip_seconds: float,
        min_clips: int,
        max_clips: int,
        min_share: float = 0.5,
        device: str = "cpu",
        pool: DecodePool,
    ) -> None:
        check_counts(model, n_s, n_t)
        counts = {"student": n_s, "teacher": n_t}
        self.class_names = tuple(class_names)
        self.n_s, self.n_t = n_s, n_t
        self.branches = {branch: branches[branch] for branch in BRANCHES if counts[branch]}
        self._model = model.to(device).eval()
        self._device = device
        self._grid = {"clip_seconds": clip_seconds, "min_clips": min_clips, "max_clips": max_clips}
        self._min_share = min_share
        self._pool: DecodePool | None = pool
        self._reading = False
        self._new_pool = partial(DecodePool, workers=pool.workers, deadline=pool.deadline)
        self._networks = Lock()
        self._heads_gmacs = cache(partial(_heads_gmacs, self._model))
        widths = branch_widths(model, n_s=n_s)
        for branch, network in self.branches.items():
            if network.backbone.channels != widths[branch]:
                raise DynapropError(
                    f"the heads take {branch} features of {widths[branch]} channels, "
                    f"{network.backbone.key.model} gives {network.backbone.channels}: they do not belong together"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def close(self) -> None:
        """End the decode processes; the next call starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def predict(self, videos: str | Path | Iterable[str | Path], *, top: int = 5) -> list[Prediction]:
        """Recognise videos; one answer a video, in order, also for those that fail.

        Args:
            videos: files, or a single one.
            top: classes to name.

        Raises:
            UsageError: the answers of an earlier ``predictions`` are still being read.
        """
        return list(self.predictions(videos, top=top))

    def predictions(self, videos: str | Path | Iterable[str | Path], *, top: int = 5) -> Iterator[Prediction]:
        """As ``predict``, each answer as soon as it is known."""
        for group in self._groups(videos):
            yield from self._score(group, top)

    def features(self, videos: str | Path | Iterable[str | Path]) -> list[Features]:
        """The backbones' features of the very frames that ``predict`` looks at; one answer a video, in order."""
        return [
            Features(one.video, one.found.get("student"), one.found.get("teacher"), one.milliseconds, one.error)
            for group in self._groups(videos)
            for one in group
        ]

    def _groups(self, videos: str | Path | Iterable[str | Path]) -> Iterator[list["_Video"]]:
        """The features of all videos, some videos at a time."""
        if self._reading:  # its frames hold the children that this call would wait for
            raise UsageError("read the predictions of the last call to their end, or close them, before the next call")
        self._reading = True
        self._pool = self._pool or self._new_pool()
        sampled = sample_videos(
            map(str, [videos] if isinstance(videos, str | Path) else videos),
            pool=self._pool,
            choose=self._choose,
            sizes=[network.backbone.key.size for network in self.branches.values()],
            min_share=self._min_share,
            **self._grid,  # type: ignore[arg-type]
        )
        done = False
        try:
            while group := list(islice(sampled, _TOGETHER)):
                yield self._forward(group)
            done = True
        finally:
            self._reading = False
            if not done:  # frames that nobody reads any more would block the children
                self.close()

    def _choose(self, n_clips: int) -> list[np.ndarray]:
        clips = dict(zip(BRANCHES, inference_clips(n_clips, n_s=self.n_s, n_t=self.n_t), strict=True))
        return [clips[branch] for branch in self.branches]

    def _forward(self, group: list[SampledVideo]) -> list["_Video"]:
        videos = [
            _Video(
                video.path, {}, Milliseconds(1e3 * video.probe_seconds, 1e3 * video.decode_seconds), error=video.error
            )
            for video in group
        ]
        usable = [index for index, video in enumerate(group) if video.error is None]
        for place, (branch, network) in enumerate(self.branches.items()):
            of_branch = [group[index].branches[place] for index in usable]
            if not of_branch:
                continue
            began = time.perf_counter()
            with self._networks:
                rows = _features(network.backbone, np.concatenate([video.frames for video in of_branch]))
            per_frame = 1e3 * (time.perf_counter() - began) / len(rows)
            ends = np.cumsum([len(video.frames) for video in of_branch])
            for index, frames, features in zip(usable, of_branch, np.split(rows, ends[:-1]), strict=True):
                one = videos[index]
                one.found[branch] = BranchFeatures(frames.timestamps, features)
                spent = replace(one.milliseconds, **{branch: per_frame * len(features)})
                error = one.error or (None if np.isfinite(features).all() else _NOT_FINITE)
                videos[index] = replace(one, milliseconds=spent, error=error)
        return videos

    def _score(self, group: list["_Video"], top: int) -> Iterator[Prediction]:
        usable = [video for video in group if video.error is None]
        began = time.perf_counter()
        scores = self._heads(usable) if usable else None
        milliseconds = 1e3 * (time.perf_counter() - began) / max(len(usable), 1)
        for video in group:
            if video.error is not None or scores is None:
                yield Prediction(video.video, milliseconds=video.milliseconds, error=video.error)
            else:
                spent = replace(video.milliseconds, heads=milliseconds)
                yield self._prediction(video, scores, usable.index(video), spent, top)

    @torch.inference_mode()
    def _heads(self, videos: list["_Video"]) -> VideoScores:
        batch: dict[str, Frames] = {}
        for branch in self.branches:
            features = [video.found[branch].features for video in videos]
            ends = np.cumsum([len(one) for one in features])
            rows = [end - len(one) + np.arange(len(one)) for end, one in zip(ends, features, strict=True)]
            batch[branch] = gather_frames(torch.from_numpy(np.concatenate(features)), rows, device=self._device)
        with self._networks:
            scores = score_videos(self._model, batch.get("student"), batch.get("teacher"))
        return scores.cpu()  # a GPU is done only then

    def _prediction(
        self, video: "_Video", scores: VideoScores, place: int, milliseconds: Milliseconds, top: int
    ) -> Prediction:
        p = scores.probabilities[place].numpy()
        if not np.isfinite(p).all():
            return Prediction(video.video, milliseconds=milliseconds, error=_NOT_FINITE)
        best = np.argsort(-p, kind="stable")[:top]
        tracks, counts = {}, {"student": 0, "teacher": 0}
        for branch, views in (("student", scores.student), ("teacher", scores.teacher)):
            if views is not None:
                found = video.found[branch]
                counts[branch] = len(found.timestamps)
                tracks[branch] = FrameTrack(found.timestamps, views[place, : counts[branch]].numpy())
        attention = scores.attention
        if attention is not None:
            attention = attention[place, : counts["student"], : counts["teacher"]]
        spent = sum(network.gmacs * counts[branch] for branch, network in self.branches.items())
        return Prediction(
            video.video,
            top=tuple((self.class_names[index], float(p[index])) for index in best),
            scores=p,
            student=tracks.get("student"),
            teacher=tracks.get("teacher"),
            attention=None if attention is None else attention.numpy(),
            gmacs=spent + self._heads_gmacs(counts["student"], counts["teacher"]),
            milliseconds=milliseconds,
        )


_NOT_FINITE = VideoError("not_finite", "a feature or score is not a finite number")


@dataclass(frozen=True, eq=False)
class _Video:
    """One video's features, or why there are none."""

    video: str
    found: dict[str, BranchFeatures]
    milliseconds: Milliseconds
    error: VideoError | None


def _heads_gmacs(model: Model, n_s: int, n_t: int) -> float:
    return gmacs_heads(model, n_s=n_s, n_t=n_t)


def _features(backbone: FrameBackbone, frames: np.ndarray) -> np.ndarray:
    """Features ``[n, d]`` in half precision, as the cache holds them, of frames ``[n, size, size, 3]``."""
    parts = [backbone.features(frames[first : first + _BATCH]) for first in range(0, len(frames), _BATCH)]
    with np.errstate(over="ignore"):  # an overflow becomes inf and fails the video
        return np.concatenate(parts).astype(np.float16)


@contextmanager
def starting_pool(*, workers: int | None = None, deadline: float = 60.0) -> Iterator[DecodePool]:
    """Decode children that start while the body builds a recogniser, which then owns them; they end if it fails.

    Args:
        workers: decode processes; one a core by default.
        deadline: seconds without a new frame after which a video is given up.
    """
    pool = DecodePool(workers=workers, deadline=deadline)
    pool.start()
    try:
        yield pool
    except BaseException:
        pool.close()
        raise


def load_export(
    folder: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    deadline: float = 60.0,
    on_note: Callable[[str], None] | None = None,
) -> Recogniser:
    """The recogniser of an exported model.

    Args:
        folder: of `dynaprop.heads.export.model_folder`.
        device: auto, cpu, cuda or cuda:N.
        workers, deadline: see `starting_pool`.
        on_note: called with a line for people where a backbone runs slower than it might.

    Raises:
        UsageError: there is no exported model.
        DynapropError: its files are damaged, do not belong together, or come from another version.
    """
    device = resolve_device(device)

    def load() -> tuple[Exported, dict[Branch, BranchNetwork]]:
        exported, branches = read_export(folder), {}
        for branch, (key, weights) in exported.backbones.items():
            backbone = FrameBackbone(key=key, weights=weights, device=device, on_note=on_note)
            branches[branch] = BranchNetwork(backbone, exported.record.backbones[branch].gmacs)
        return exported, branches

    with starting_pool(workers=workers, deadline=deadline) as pool:
        exported, branches = while_unchanged(folder, load)
        return Recogniser(
            exported.model,
            class_names=exported.record.class_names,
            n_s=exported.record.n_s,
            n_t=exported.record.n_t,
            branches=branches,
            **exported.record.grid.model_dump(),
            device=device,
            pool=pool,
        )
