"""How long commands take to start: each as a ratio to `import torch` in the same run; `python -m bench.start`.

Works on the sample dataset in a folder of its own, made ready first. Prints a table and writes start.json.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.machine import describe_machine, median_seconds, run_module

HERE = Path(__file__).resolve().parent
REPETITIONS = 5

# At most so many times `import torch`.
TARGETS = {
    "--help": 0.1,
    "datasets": 0.5,
    "extract sample": 0.5,
    "sweep sample": 0.5,
    "run sample": 0.5,
    "predict RUN VIDEO": 1.4,
    "predict EXPORT VIDEO": 1.4,
}


def main() -> None:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory(prefix="dynaprop-start-") as folder:
        ratios, torch_seconds = measure(Path(folder))
    print(f"`import torch`: {torch_seconds:.2f} s; times that, medians of {REPETITIONS}:")
    for name, ratio in ratios.items():
        print(f"  {name:<24} {ratio:6.2f}  (at most {TARGETS[name]:g})")
    document = {"machine": describe_machine(), "import_torch_seconds": torch_seconds, "ratios": ratios}
    (HERE / "start.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def measure(home: Path) -> tuple[dict[str, float], float]:
    """Ratios by command, all of which have nothing left to do but to answer, and the seconds of the import."""
    environment = {"DYNAPROP_HOME": str(home)}
    dynaprop = partial(run_module, "dynaprop.flows.cli", **environment)
    dynaprop("run", "sample")
    exported = home / "exported-model"
    dynaprop("export", "sample", "--output", str(exported))
    video = str(min((home / "data").rglob("*.mp4")))
    arguments = {name: name.split() for name in TARGETS}
    arguments["predict RUN VIDEO"] = ["predict", "sample", video]
    arguments["predict EXPORT VIDEO"] = ["predict", str(exported), video]
    steps: dict[str, Callable[[], object]] = {
        "torch": partial(subprocess.run, [sys.executable, "-c", "import torch"], check=True, env=dict(os.environ))
    }
    steps |= {name: partial(dynaprop, *words) for name, words in arguments.items()}
    seconds = median_seconds(steps, REPETITIONS)
    torch_seconds = seconds.pop("torch")
    return {name: value / torch_seconds for name, value in seconds.items()}, torch_seconds


if __name__ == "__main__":
    main()
