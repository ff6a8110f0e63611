"""Trained models in Python: ``dynaprop.load(MODEL)``, then ``predict`` and ``features`` of what it returns."""

from flows.models import load
from heads.recognised import Features, Prediction
from heads.recogniser import Recogniser

__all__ = ["Features", "Prediction", "Recogniser", "load"]
