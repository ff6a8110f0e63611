"""Trained models in Python: ``dynaprop.load(MODEL)``, then ``predict`` and ``features`` of what it returns."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynaprop.heads.recognise.load import load
    from dynaprop.heads.recognise.prediction import Features, Prediction
    from dynaprop.heads.recognise.recogniser import Recogniser

__all__ = ["Features", "Prediction", "Recogniser", "load"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: every command and every decode process imports this package."""
    if name == "load":
        from dynaprop.heads.recognise.load import load

        return load
    if name == "Recogniser":
        from dynaprop.heads.recognise.recogniser import Recogniser

        return Recogniser
    if name in ("Features", "Prediction"):
        from dynaprop.heads.recognise import prediction

        return getattr(prediction, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
