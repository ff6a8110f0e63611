"""A network as torch runs it: on a GPU, one batch computes while the next is filled."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
# Convolutions on GPUs have 10 of 23 bits by default, and choose among algorithms that round differently.
_EXACT = partial(torch.backends.cudnn.flags, enabled=True, deterministic=True, allow_tf32=False)


class TorchNetwork:
    """Runs batches of square RGB frames on any device.

    Args:
        network: frozen, in evaluation mode: ``[b, 3, size, size]`` to ``[b, channels]``.
        mean, std: normalisation of pixels in [0, 1].
        precision: of the forward pass, ``fp32``, ``fp16`` or ``bf16``.
        device: torch device.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        precision: str = "fp32",
        device: torch.device,
    ) -> None:
        self.device = device
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1) * 255
        self._half = _HALF.get(precision)

    @torch.inference_mode()
    def start(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin a batch; what is returned waits for its features. A GPU computes meanwhile, a CPU is done already.

        Args:
            frames: ``[b, size, size, 3]`` uint8 RGB; they may be overwritten at once.

        Returns:
            A function without arguments that gives ``[b, channels]`` float32.
        """
        batch = torch.from_numpy(frames)
        if self.device.type == "cuda":
            batch = batch.pin_memory()  # a copy; torch keeps its memory until the transfer is over, and uses it again
        # NHWC bytes seen as NCHW are already channels_last.
        pixels = batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        with _EXACT(), torch.autocast(self.device.type, self._half, enabled=self._half is not None):
            features = self._network((pixels - self._mean) / self._std).float()
        if self.device.type != "cuda":
            return features.cpu().numpy
        result = torch.empty(features.shape, pin_memory=True).copy_(features, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))  # not that of the current device

        def wait() -> np.ndarray:
            done.synchronize()
            return result.numpy()

        return wait
