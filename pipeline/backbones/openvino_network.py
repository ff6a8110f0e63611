"""A network compiled for the CPU by OpenVINO: the features that torch computes, two to three times as fast."""

import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

# What the CPU must be capable of, and what OpenVINO calls it then.
_PRECISIONS = {"fp32": ("FP32", "f32"), "fp16": ("FP16", "f16"), "bf16": ("BF16", "bf16")}
_DIFFERENCE = {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.1}  # from torch's features in fp32, at most, relative


class CompiledNetwork:
    """Runs batches of square RGB frames in the background, with torch's number of threads.

    Rows do not depend on one another: a frame's features are the same in any batch, to the last bit.

    Args:
        network: frozen, on the CPU, in evaluation mode: ``[b, 3, size, size]`` to ``[b, channels]``.
        size: pixels a side.
        mean, std: normalisation of pixels in [0, 1].
        precision: of the forward pass, ``fp32``, ``fp16`` or ``bf16``.

    Raises:
        RuntimeError: OpenVINO cannot run this network, or not in this precision on this CPU.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        precision: str = "fp32",
    ) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
        pixels = (torch.from_numpy(noise) / 255 - torch.tensor(mean)) / torch.tensor(std)
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
        try:
            with torch.no_grad():
                compiled = _compile(network, pixels[:2], mean=mean, std=std, precision=precision)
                expected = network(pixels).numpy()
            self._requests = [compiled.create_infer_request() for _ in range(2)]
            difference = self.start(noise)() - expected  # another batch size than the trace's
        except ImportError as error:
            raise RuntimeError(f"OpenVINO is not here ({error})") from error
        except Exception as error:  # OpenVINO's own have no common class
            raise RuntimeError(f"it cannot be compiled: {error}") from error
        if not np.linalg.norm(difference) <= _DIFFERENCE[precision] * np.linalg.norm(expected):
            raise RuntimeError("compiled it computes something else")

    def start(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin a batch; what is returned waits for its features, which are to be taken before the next but one begins.

        Args:
            frames: ``[b, size, size, 3]`` uint8 RGB; they may be overwritten at once.

        Returns:
            A function without arguments that gives ``[b, channels]`` float32.
        """
        request = self._requests[0]
        self._requests.reverse()
        request.wait()
        request.start_async(frames)  # which copies them

        def wait() -> np.ndarray:
            request.wait()
            return request.get_output_tensor().data.copy()

        return wait


def _compile(
    network: torch.nn.Module, example: torch.Tensor, *, mean: Sequence[float], std: Sequence[float], precision: str
) -> Any:
    """OpenVINO's compiled model, which takes uint8 frames; the network takes the example, ``[2, 3, size, size]``."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would report each import
    import openvino
    from openvino.preprocess import PrePostProcessor

    core = openvino.Core()
    capability, hint = _PRECISIONS[precision]
    if capability not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ValueError(f"this CPU has no {precision}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and fixes shapes, which are fixed here
        traced = torch.jit.trace(network, example, check_trace=False)
        # Its native code calls Python back and takes an interrupt for a network that cannot be compiled, or aborts;
        # interrupts come to the main thread alone.
        with ThreadPoolExecutor(1, thread_name_prefix="openvino") as threads:
            model = threads.submit(openvino.convert_model, traced, example_input=example).result()
    model.reshape([-1, *example.shape[1:]])
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    normalise = steps.input().preprocess().convert_element_type(openvino.Type.f32)
    normalise.mean([255 * value for value in mean]).scale([255 * value for value in std])
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # decode children share the cores
    }
    return core.compile_model(steps.build(), "CPU", options)
