"""The training loop end to end: interruptions, accumulation, several processes and learning rates change nothing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dynaprop.heads.finetune.processes import ProcessGroup
from dynaprop.heads.finetune.stage import lr_factor
from dynaprop.heads.finetune.state import TrainingState
from dynaprop.pipeline.decoding.pool import DecodePool
from dynaprop.pipeline.errors import DynapropError, InfrastructureError, UsageError
from dynaprop.pipeline.frames.batch import FrameBatch
from dynaprop.pipeline.frames.training import TrainingFrames
from dynaprop.pipeline.video.container import VideoError
from tests.conftest import REPOSITORY
from tests.heads.end_to_end import (
    STUDENT,
    TEACHER,
    dynamic_model,
    frames_of,
    probed,
    teacher_model,
    train,
    train_all,
    write_videos,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder)
    return folder


@pytest.fixture(scope="module")
def pool():
    with DecodePool(workers=1) as pool:
        yield pool


@pytest.fixture(scope="module")
def videos(folder, pool):
    return probed(sorted(folder.iterdir()), pool)


class Stop(Exception):
    """Ends a training in the middle of an epoch."""


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> None:
    """The same but for rounding, which is small beside what the training did.

    A key's bias is left out: it moves all scores of a query alike, which the softmax takes away, so that its gradient
    is rounding alone, and Adam makes steps of the usual length of that.
    """
    names = [name for name in one if not name.endswith("key.bias")]
    moved = torch.cat([(one[name] - start[name]).float().flatten() for name in names])
    apart = torch.cat([(one[name] - other[name]).float().flatten() for name in names])
    assert moved.norm() > 0
    assert apart.norm() < 1e-3 * moved.norm()


def start(folder, output, *, launch: tuple[str, ...] = (), **options) -> subprocess.Popen:
    """Train in a new process, or in those that ``launch`` starts; options as of `train_all`."""
    arguments = [str(folder), str(output), json.dumps(options)]
    command = [sys.executable, *launch, "-m", "tests.heads.end_to_end", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)


def train_by_two(folder, output, **options) -> dict[str, torch.Tensor]:
    """Train in two processes; returns the weights that both of them end with."""
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    process = start(folder, output, launch=launch, **options)
    _, said = process.communicate(timeout=250)
    assert process.returncode == 0, said
    first, second = (safetensors.torch.load_file(output / f"{rank}.safetensors") for rank in (0, 1))
    assert_same(first, second)
    return first


def gradients_of_the_step(source: TrainingFrames, folder: Path, **options) -> list[torch.Tensor]:
    """What the optimizer is given in an epoch of one batch."""
    steps = []

    def note(optimizer: torch.optim.Optimizer, *_) -> None:
        steps.append([parameter.grad.clone() for group in optimizer.param_groups for parameter in group["params"]])

    hook = register_optimizer_step_pre_hook(note)
    try:
        train(teacher_model(), source, folder, epochs=1, **options)
    finally:
        hook.remove()
    (gradients,) = steps
    return gradients


def test_the_loss_falls_and_the_log_says_how(videos, pool, tmp_path):
    told = []
    log = train(dynamic_model(), frames_of(videos, pool), tmp_path, epochs=5, on_epoch=told.append)
    assert [one.epoch for one in log] == [1, 2, 3, 4, 5]
    assert log[-1].loss < log[0].loss
    for one in log:
        assert one.loss == pytest.approx(one.video_loss + 0.5 * one.frame_loss + 0.5 * one.cosine_loss, rel=1e-5)
        assert (one.videos, one.failed) == (7, 0)
    assert told == [log[:length] for length in range(1, 6)]
    assert TrainingState(tmp_path, "stage").progress().log == log


@pytest.mark.parametrize("stage", [teacher_model, dynamic_model])
def test_a_training_that_was_stopped_ends_with_the_same_weights(videos, pool, tmp_path, stage):
    whole = stage()
    train(whole, frames_of(videos, pool), tmp_path / "whole")
    steps = []

    def stop(n: int) -> None:
        steps.append(n)
        if sum(steps) > 10:  # in the second epoch
            raise Stop

    with pytest.raises(Stop), DecodePool(workers=1) as own:
        train(stage(), frames_of(videos, own), tmp_path / "parts", on_videos=stop)
    assert TrainingState(tmp_path / "parts", "stage").progress().epochs_done == 1
    later = stage()
    with torch.no_grad():
        for parameter in later.parameters():  # what is kept counts, not what the model begins with
            parameter.add_(1.0)
    log = train(later, frames_of(videos, pool), tmp_path / "parts")
    assert_same(weights(later), weights(whole))
    assert [one.epoch for one in log] == [1, 2, 3]


def test_killed_and_continued_in_another_process(folder, pool, tmp_path):
    whole = train_all(folder, tmp_path / "whole", epochs=3, pool=pool)
    process = start(folder, tmp_path / "parts", epochs=3)
    state = TrainingState(tmp_path / "parts" / "state", "stage")
    while state.progress() is None:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert state.progress().epochs_done < 3
    later = train_all(folder, tmp_path / "parts", epochs=3, pool=pool)
    assert_same(weights(later), weights(whole))


def test_two_processes_train_as_one(folder, pool, tmp_path):
    """Batches of three are parted 2 + 1, and the last one of a single video leaves the second process without any.

    The second process begins with other weights than the first, whose are those that count.
    """
    alone = train_all(folder, tmp_path / "one", epochs=2, pool=pool)
    train_by_two(folder, tmp_path / "two", epochs=1)
    both = train_by_two(folder, tmp_path / "two", epochs=2)  # and go on where they stopped
    assert_close(both, weights(alone), weights(dynamic_model()))
    logs = [TrainingState(tmp_path / name / "state", "stage").progress().log for name in ("one", "two")]
    for one, two in zip(*logs, strict=True):
        assert (one.loss, one.videos, one.top1) == pytest.approx((two.loss, two.videos, two.top1), rel=1e-4)


def test_trained_batch_norm_has_the_mean_of_both_processes_statistics(folder, videos, pool, tmp_path):
    together = train_by_two(folder, tmp_path, epochs=1, batch_size=len(videos), train_batch_norm=True)
    own = []
    for rank in (0, 1):  # what each sees in the only forward pass, before any step
        model = dynamic_model(train_batch_norm=True)
        source = frames_of(videos, pool, batch_size=len(videos), rank=rank, ranks=2)
        train(model, source, tmp_path / str(rank), epochs=1)
        own.append(weights(model))
    names = [name for name in together if name.startswith("student.") and "running_" in name]
    assert names
    for name in names:
        assert not torch.equal(own[0][name], own[1][name])
        torch.testing.assert_close(together[name], (own[0][name] + own[1][name]) / 2)


def test_accumulated_gradients_are_those_of_the_whole_batch(videos, pool, tmp_path):
    models = []
    for micro_batch in (None, 2, 1):
        models.append(dynamic_model())
        train(models[-1], frames_of(videos, pool), tmp_path / str(micro_batch), micro_batch=micro_batch, epochs=2)
    whole, *others = map(weights, models)
    for other in others:
        assert_close(whole, other, weights(dynamic_model()))


def test_a_video_that_cannot_be_decoded_is_left_out_once_and_said_once(videos, pool, tmp_path):
    path = tmp_path / "bad.mp4"
    path.write_bytes((write_videos(tmp_path / "others", 1)[0]).read_bytes())
    more = [*videos, *probed([path], pool)]
    path.write_bytes(b"no video")
    said = []

    def note(video: str, error: VideoError) -> None:
        said.append(video)

    source = frames_of(more, pool)
    log = train(teacher_model(), source, tmp_path / "state", on_failure=note, epochs=2)
    assert said == ["bad.mp4"]
    assert [(one.videos, one.failed) for one in log] == [(7, 1), (7, 1)]
    assert TrainingState(tmp_path / "state", "stage").progress().failed == ("bad.mp4",)


def test_a_disk_that_goes_away_costs_an_epoch_and_no_video(pool, tmp_path):
    folder, away = tmp_path / "videos", tmp_path / "away"
    write_videos(folder)
    source = frames_of(probed(sorted(folder.iterdir()), pool), pool)

    def unmount(n: int) -> None:
        if folder.exists() and TrainingState(tmp_path / "state", "stage").progress():
            folder.rename(away)

    straight, stopped, again = teacher_model(), teacher_model(), teacher_model()
    train(straight, source, tmp_path / "straight")
    with pytest.raises(InfrastructureError, match="has gone since it was probed; is its disk still mounted"):
        train(stopped, source, tmp_path / "state", on_videos=unmount)
    away.rename(folder)
    log = train(again, source, tmp_path / "state")
    assert [(one.videos, one.failed) for one in log] == [(7, 0)] * 3
    assert_same(weights(straight), weights(again))


@pytest.mark.parametrize(
    ("kind", "videos_an_epoch", "kept"),
    [("decode", [6, 6], ("2.mp4",)), ("timeout", [6, 6], ()), ("missing_frames", [6, 7], ())],
)
def test_only_what_is_the_video_s_fault_for_good_is_remembered(videos, pool, tmp_path, kind, videos_an_epoch, kept):
    """A deadline that was missed is not, and of a damaged video another epoch draws other frames."""
    source = frames_of(videos, pool)
    batches = source.epoch

    def epoch(number: int, *, without: set[int]) -> Iterator[FrameBatch]:
        yield from batches(number, without={*without, 2} if number == 1 else without)
        if number == 1:
            yield FrameBatch(*batch_of_nothing(), failed={2: VideoError(kind, "in this test")})

    source.epoch = epoch
    log = train(teacher_model(), source, tmp_path, epochs=2)
    assert [one.videos for one in log] == videos_an_epoch
    assert TrainingState(tmp_path, "stage").progress().failed == kept


def batch_of_nothing() -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    nothing = np.zeros(0, np.int64)
    return nothing, nothing, {size: np.zeros((0, size, size, 3), np.uint8) for size in (STUDENT, TEACHER)}


def test_processes_that_do_not_see_the_same_state_are_refused(videos, pool, tmp_path):
    """Else they would wait for one another for hours: one begins where the other goes on."""
    group = ProcessGroup()
    group.gather = lambda epochs_done: [epochs_done, 2]
    with pytest.raises(UsageError, match="DYNAPROP_HOME has to be a folder that they share"):
        train(teacher_model(), frames_of(videos, pool), tmp_path, group=group)


def test_a_step_is_by_the_mean_over_the_videos_that_are_there(videos, pool, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    bad = replace(videos[0], id="bad", path=str(tmp_path / "bad.mp4"))
    whole = gradients_of_the_step(frames_of(videos, pool, batch_size=7), tmp_path / "whole")
    fewer = gradients_of_the_step(frames_of(videos, pool, batch_size=10), tmp_path / "fewer")
    failed = gradients_of_the_step(frames_of([*videos, bad], pool, batch_size=8), tmp_path / "failed")
    torch.testing.assert_close(fewer, whole)
    torch.testing.assert_close(failed, whole)


def test_gradients_that_half_precision_scales_reach_the_optimizer_as_they_are(videos, pool, tmp_path):
    source = frames_of(videos, pool, batch_size=7)
    plain, scaled = (gradients_of_the_step(source, tmp_path / name, precision=name) for name in ("fp32", "fp16"))
    torch.testing.assert_close(scaled, plain)


def test_backbone_and_heads_have_learning_rates_of_their_own(videos, pool, tmp_path):
    """Adam's first step moves every weight by its learning rate, whatever its gradient."""
    model = teacher_model()
    before = weights(model)
    one_step = {"epochs": 1, "lr": 1e-3, "backbone_lr": 0.1, "warmup": 0, "weight_decay": 0}
    train(model, frames_of(videos, pool, batch_size=7), tmp_path, **one_step)
    moves = {name: (tensor - before[name]).abs().max().item() for name, tensor in model.state_dict().items()}
    assert moves["heads.classifier.weight"] == pytest.approx(1e-3, rel=0.02)
    assert moves["encoder.backbone.conv1.0.weight"] == pytest.approx(1e-4, rel=0.02)


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_nothing(videos, pool, tmp_path):
    model = teacher_model()
    with torch.no_grad():
        model.heads.classifier.bias.fill_(np.nan)
    with pytest.raises(DynapropError, match="training loss is nan in epoch 1"):
        train(model, frames_of(videos, pool), tmp_path)
    assert TrainingState(tmp_path, "stage").progress() is None


def test_damaged_states_are_refused(videos, pool, tmp_path):
    train(teacher_model(), frames_of(videos, pool), tmp_path, epochs=1)
    (tensors,) = tmp_path.glob("*.safetensors")
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(DynapropError, match=r"is not the file that stage\.json describes; delete this folder"):
        train(teacher_model(), frames_of(videos, pool), tmp_path, epochs=2)
    described = tmp_path / "stage.json"
    whole = described.read_text()
    described.write_text(whole.replace('"epochs_done": 1', '"epochs_done": 99'))
    with pytest.raises(DynapropError, match=r"stage\.json is damaged: its checksum is another one.*delete this folder"):
        train(teacher_model(), frames_of(videos, pool), tmp_path, epochs=2)
    without = {name: value for name, value in json.loads(whole).items() if name != "checksum"}
    described.write_text(json.dumps(without | {"epochs_done": 99}))  # as an earlier version wrote it
    with pytest.raises(DynapropError, match=r"epochs_done and log do not agree; delete this folder"):
        train(teacher_model(), frames_of(videos, pool), tmp_path, epochs=2)
    described.write_text(whole)
    tensors.unlink()
    with pytest.raises(DynapropError, match="delete this folder"):
        train(teacher_model(), frames_of(videos, pool), tmp_path, epochs=2)
    (tmp_path / "stage.json").write_text("{}")
    with pytest.raises(DynapropError, match=r"stage.json: Field required; delete this folder"):
        train(teacher_model(), frames_of(videos, pool), tmp_path, epochs=2)


def test_a_state_of_other_videos_is_refused(videos, pool, tmp_path):
    train(teacher_model(), frames_of(videos, pool), tmp_path, epochs=1)
    with pytest.raises(DynapropError, match="saw other training videos"):
        train(teacher_model(), frames_of(videos[1:], pool), tmp_path, epochs=2)
    assert TrainingState(tmp_path, "stage").progress().epochs_done == 1


def test_a_state_of_another_model_is_refused(videos, pool, tmp_path):
    train(teacher_model(), frames_of(videos, pool), tmp_path, epochs=1)
    with pytest.raises(DynapropError, match="is of another model"):
        train(dynamic_model(), frames_of(videos, pool), tmp_path, epochs=2)


def test_learning_rates_rise_then_fall():
    step, epochs = 0.25, 4
    steps = [lr_factor(number * step, step=step, epochs=epochs, warmup=1) for number in range(16)]
    assert steps[0] == pytest.approx(0.25)
    assert max(steps) == steps[4] or max(steps) == steps[3]
    assert all(later < earlier for earlier, later in pairwise(steps[4:]))
    assert steps[-1] < 0.02
    drops = [lr_factor(done, step=1, epochs=4, milestones=(1, 3)) for done in range(4)]
    assert drops == pytest.approx([1, 0.1, 0.1, 0.01])
    assert lr_factor(3, step=1, epochs=4, milestones=()) == 1
