"""A network compiled for the CPU by OpenVINO: the features that torch computes, two to three times as fast."""

import sys
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch

# What the CPU must be able to do, OpenVINO's name, and by how much features may differ from torch's in fp32, relative.
_PRECISIONS = {"fp32": ("FP32", "f32", 1e-3), "fp16": ("FP16", "f16", 0.1), "bf16": ("BF16", "bf16", 0.1)}


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
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would report each import
        try:
            import openvino
            from openvino import preprocess
        except ImportError as error:
            raise RuntimeError(f"OpenVINO cannot be loaded: {error}") from error

        core = openvino.Core()
        capability, hint, difference = _PRECISIONS[precision]
        if capability not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RuntimeError(f"this CPU has no {precision}")
        noise = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
        pixels = (torch.from_numpy(noise) / 255 - torch.tensor(mean)) / torch.tensor(std)
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tracing is deprecated, and fixes shapes, which are fixed here
                traced = torch.jit.trace(network, pixels[:2], check_trace=False)
                model = openvino.convert_model(traced, example_input=pixels[:2])
                expected = network(pixels).numpy()
        except Exception as error:  # OpenVINO's own have no common class
            raise RuntimeError(f"this network cannot be compiled: {error}") from error
        model.reshape([-1, 3, size, size])
        steps = preprocess.PrePostProcessor(model)
        steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        steps.input().preprocess().convert_element_type(openvino.Type.f32)
        steps.input().preprocess().mean([255 * value for value in mean]).scale([255 * value for value in std])
        compiled = core.compile_model(
            steps.build(),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "ENABLE_CPU_PINNING": False,  # decode children share the cores
            },
        )
        self._requests = [compiled.create_infer_request() for _ in range(2)]
        found = self.start(noise)()  # another batch size than the trace's
        if found.shape != expected.shape or not _norm(found - expected) <= difference * _norm(expected):
            raise RuntimeError("compiled it computes something else")

    def start(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin a batch; what is returned waits for its features, which are to be taken before the next but one begins.

        Args:
            frames: ``[b, size, size, 3]`` uint8 RGB; they may be overwritten at once.

        Returns:
            A function without arguments that gives ``[b, channels]`` float32.
        """
        import openvino

        request = self._requests[0]
        self._requests.reverse()
        request.wait()
        request.start_async({0: openvino.Tensor(frames)})  # a copy

        def wait() -> np.ndarray:
            request.wait()
            return request.get_output_tensor().data.copy()

        return wait


def _norm(features: np.ndarray) -> float:
    return float(np.linalg.norm(features))
