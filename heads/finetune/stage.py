"""Fine-tuning: one stage of the end-to-end training on decoded frames (sections 3.3 and 4.1), epoch by epoch.

After every epoch the state is kept. A training that goes on from it sees the data that it would have seen, and on a CPU
ends with the very weights of one that was never interrupted.
"""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from dynaprop.heads.finetune.networks import (
    EndToEndDynamic,
    FrameEncoder,
    VideoClassifier,
    student_losses,
    teacher_losses,
)
from dynaprop.heads.finetune.processes import ProcessGroup
from dynaprop.heads.finetune.state import EpochLog, TrainingState
from dynaprop.heads.model.branch import measure_std
from dynaprop.heads.model.losses import Losses
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.frames.batch import FrameBatch
from dynaprop.pipeline.frames.training import TrainingFrames
from dynaprop.pipeline.video.container import VideoError

_MEASURED = 512  # videos
_LOSSES = ("total", "video", "frame", "cosine")
_OF_THE_DRAW = {"missing_frames"}  # another epoch draws other frames of a damaged video
_OF_THE_MOMENT = {"timeout", "crash"}  # the next run may get on with the video

EndToEnd = VideoClassifier | EndToEndDynamic


def finetune_stage(
    model: EndToEnd,
    source: TrainingFrames,
    labels: Sequence[int],
    *,
    state: TrainingState,
    student_size: int | None = None,
    teacher_size: int,
    epochs: int = 10,
    lr: float = 1e-4,
    backbone_lr: float = 0.1,
    weight_decay: float = 0.01,
    warmup: float = 1.0,
    milestones: Sequence[int] | None = None,
    micro_batch: int | None = None,
    lambda_frm: float = 0.5,
    lambda_cos: float = 0.5,
    precision: str = "fp32",
    seed: int = 0,
    device: torch.device | str = "cpu",
    group: ProcessGroup | None = None,
    on_videos: Callable[[int], None] | None = None,
    on_epoch: Callable[[tuple[EpochLog, ...]], None] | None = None,
    on_failure: Callable[[str, VideoError], None] | None = None,
) -> tuple[EpochLog, ...]:
    """Train what is not frozen of a model by AdamW, from the last epoch that ``state`` has; ends in evaluation mode.

    Args:
        model: stage 1's or stage 2's; it is moved to ``device``
        source: the frames of the training videos
        labels: class index of each of its videos
        state: where finished epochs are kept
        student_size: pixels of the student's frames; stage 2 alone
        teacher_size: pixels of the teacher's
        epochs: passes over the training videos
        lr: learning rate of the heads
        backbone_lr: the backbone's, as a share of the heads'
        weight_decay: of AdamW, for matrices and filters; biases and normalisation have none
        warmup: epochs in which the learning rates rise from 0
        milestones: epochs after which the learning rates drop to a tenth; None to let them fall to 0 by a half cosine
        micro_batch: videos that pass through the network at once; a batch's gradients are accumulated over as many
            as it takes. None for whole batches
        lambda_frm, lambda_cos: of eq. (5); stage 2 alone
        precision: of the backbones: with ``fp16`` gradients are scaled
        seed: of what is random in the network; data have their own
        device: where to train
        group: the processes that train together
        on_videos: called after every batch with its number of videos, of all processes together
        on_epoch: called with the log of all epochs after each
        on_failure: called with the id of a video that is left out, and why, in the process that met it

    Returns:
        The log of all epochs.

    Raises:
        InfrastructureError: a video's file has gone
        UsageError: the processes see different states
        DynapropError: the state is damaged, no video can be decoded, or the loss is not finite
    """
    group = group or ProcessGroup()
    device = torch.device(device)
    model.to(device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(model, backbone_lr=backbone_lr, weight_decay=weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    scaler.scale(
        torch.zeros((), device=device)
    )  # a process whose part of the first batch is empty needs its scale, too
    log: tuple[EpochLog, ...] = ()
    ids = [video.id for video in source.videos]
    failed: set[int] = set()
    passing: set[int] = set()
    kept = state.progress()
    if len(set(group.gather(kept and kept.epochs_done))) > 1:
        raise UsageError(f"not all processes see {state.folder}: DYNAPROP_HOME has to be a folder that they share")
    if kept is not None:
        state.restore(kept, model, optimizer, videos=source.digest)
        scaler.load_state_dict(dict(kept.scaler))
        log = kept.log
        failed = {number for number, video in enumerate(ids) if video in kept.failed}
    group.share(model)

    def losses_of(part: FrameBatch) -> Losses:
        mask = torch.from_numpy(part.mask).to(device)  # [b, n]
        targets = torch.tensor([labels[video] for video in part.videos], device=device)  # [b]
        frames_t = _to(part.frames[teacher_size], device)
        if isinstance(model, VideoClassifier):
            return teacher_losses(model, frames_t, mask, targets)
        assert student_size is not None
        frames_s = _to(part.frames[student_size], device)
        return student_losses(model, frames_s, frames_t, mask, targets, lambda_frm=lambda_frm, lambda_cos=lambda_cos)

    for epoch in range(len(log) + 1, epochs + 1):
        began = time.monotonic()
        totals = torch.zeros(len(_LOSSES) + 2, dtype=torch.float64, device=device)  # losses, right ones, videos
        model.train()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence([seed, epoch, group.rank]).generate_state(1)[0]))
            for number, batch in enumerate(source.epoch(epoch, without=failed | passing)):
                for video, error in batch.failed.items():
                    if error.kind not in _OF_THE_DRAW:
                        (passing if error.kind in _OF_THE_MOMENT else failed).add(video)
                    if on_failure is not None:
                        on_failure(ids[video], error)
                sums = torch.zeros_like(totals)
                for part in batch.parts(micro_batch or source.batch_size):
                    losses = losses_of(part)
                    # A sum over videos, so that parts and processes only have to be added up.
                    scaler.scale(losses.total * (len(part) / source.batch_size)).backward()
                    sums += _sums(losses, part, labels)
                group.sum(sums)
                if not math.isfinite(loss := sums[0].item()):  # the sum over all processes: all of them stop
                    raise DynapropError(
                        f"training loss is {loss} in epoch {epoch}: lower lr={lr:g} or use precision fp32"
                    )
                totals += sums
                lr_now = lr * lr_factor(
                    epoch - 1 + number / source.n_batches,
                    step=1 / source.n_batches,
                    epochs=epochs,
                    warmup=warmup,
                    milestones=milestones,
                )
                if (videos := sums[-1].item()) > 0:
                    group.sum_gradients(parameters)
                    _step(optimizer, scaler, parameters, lr=lr_now, weight=source.batch_size / videos)
                if on_videos is not None:
                    on_videos(int(videos))
        group.mean_statistics(model)
        failed, passing = (set().union(*group.gather(one)) for one in (failed, passing))
        log = (*log, _logged(epoch, totals, lr=lr_now, failed=len(failed | passing), seconds=time.monotonic() - began))
        if group.rank == 0:
            state.save(
                model,
                optimizer,
                log=log,
                failed=tuple(sorted(ids[number] for number in failed)),
                videos=source.digest,
                scaler=scaler.state_dict(),
            )
            if on_epoch is not None:
                on_epoch(log)
        group.wait()
    model.eval()
    return log


def lr_factor(
    done: float, *, step: float, epochs: int, warmup: float = 0.0, milestones: Sequence[int] | None = None
) -> float:
    """What the learning rate of a step is multiplied by.

    Args:
        done: epochs before the step, such as 2.25
        step: of an epoch, such as 0.25
        epochs: in all
        warmup: epochs of linear rise
        milestones: epochs after which it drops to a tenth; None for a half cosine down to 0
    """
    rise = min(1.0, (done + step) / warmup) if warmup > 0 else 1.0
    if milestones is None:
        return rise * 0.5 * (1 + math.cos(math.pi * min(done / epochs, 1.0)))
    return rise * 0.1 ** sum(done >= milestone for milestone in milestones)


def measure_frames_std(
    encoder: FrameEncoder, source: TrainingFrames, *, size: int, device: torch.device | str = "cpu"
) -> float:
    """Standard deviation of a backbone's features of training videos, for `Branch`'s ``feature_std``.

    A few hundred videos tell it well enough.

    Raises:
        DynapropError: no video can be decoded, or the features are constant or not finite
    """
    encoder.to(device).eval()
    features = [torch.empty(0, 0)]
    with torch.inference_mode():
        for batch in source.plain(most=_MEASURED):
            for part in batch.parts(1):
                mask = torch.from_numpy(part.mask).to(device)
                z = encoder(_to(part.frames[size], torch.device(device)), mask)  # [1, n, d]
                features.append(z[0].half().cpu())
    if len(features) == 1:
        raise DynapropError("none of the training videos can be decoded")
    together = torch.cat(features[1:])  # [frames, d]
    return measure_std(together, np.arange(len(together)))


def _to(frames: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(frames)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _optimizer(model: EndToEnd, *, backbone_lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over what is trained; ``share`` is a group's part of the heads' learning rate."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            share = backbone_lr if ".backbone." in name else 1.0
            groups.setdefault((share, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "share": share}
            for (share, decay), parameters in groups.items()
        ],
        lr=0.0,  # set before every step
    )


def _step(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    parameters: Sequence[torch.nn.Parameter],
    *,
    lr: float,
    weight: float,
) -> None:
    """One step by the gradients times ``weight``, which makes of a sum over the batch the mean of the videos there."""
    scaler.unscale_(optimizer)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(weight)
    for each in optimizer.param_groups:
        each["lr"] = lr * each["share"]
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


def _sums(losses: Losses, part: FrameBatch, labels: Sequence[int]) -> torch.Tensor:
    """Sums over the videos of a part: the losses, the right predictions, the videos."""
    n = len(part)
    device = losses.total.device
    targets = torch.tensor([labels[video] for video in part.videos], device=device)
    right = (losses.video_logits.argmax(dim=1) == targets).sum()
    values = [getattr(losses, name) for name in _LOSSES]
    nothing = torch.zeros((), device=device)
    sums = [nothing if value is None else value.detach() * n for value in values]
    return torch.stack([*sums, right, torch.tensor(n, device=device)]).double()


def _logged(epoch: int, totals: torch.Tensor, *, lr: float, failed: int, seconds: float) -> EpochLog:
    *sums, right, videos = totals.tolist()
    if not videos:
        raise DynapropError("none of the training videos can be decoded")
    total, video, frame, cosine = (value / videos for value in sums)
    return EpochLog(
        epoch=epoch,
        loss=total,
        video_loss=video,
        frame_loss=frame or None,  # exactly 0 where it is left out
        cosine_loss=cosine or None,
        top1=right / videos,
        lr=lr,
        videos=int(videos),
        failed=failed,
        seconds=seconds,
    )
