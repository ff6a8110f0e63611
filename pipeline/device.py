"""Which device torch computes on."""

from dynaprop.pipeline.errors import UsageError


def resolve_device(device: str) -> str:
    """Turn ``auto`` into ``cuda`` where there is a GPU, else ``cpu``, and check any other name.

    Raises:
        UsageError: torch has no such device here.
    """
    if device == "cpu":
        return device
    import torch  # takes seconds

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.is_available():
        return device  # nothing is tried on it: processes that torchrun has started get a GPU each, later
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("it computes nothing")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition("Expected one of")[0] or "torch knows no such device"
        raise UsageError(f"device {device!r} cannot be used here ({reason}); known: auto, cpu, cuda, cuda:N") from None
    return device
