"""The command line: `dynaprop`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynaprop.flows.server.named import names_server
from dynaprop.flows.server.own_server import named_server, prefect_server, without_password
from dynaprop.flows.terminal.environment import prepare_environment
from dynaprop.flows.terminal.interrupts import interrupted, interruptible
from dynaprop.flows.terminal.printing import answer, complain, make_harmless
from dynaprop.flows.terminal.progress import TERMINAL
from dynaprop.flows.terminal.remedies import as_shown
from dynaprop.pipeline.errors import DynapropError, UsageError
from dynaprop.pipeline.io.file_names import require_utf8_locale
from dynaprop.pipeline.machine import is_first
from dynaprop.pipeline.printable import printable, shell_line

if TYPE_CHECKING:
    from dynaprop.pipeline.io.paths import StoragePath
    from dynaprop.pipeline.workspace import Workspace

app = typer.Typer(
    help="Efficient video action recognition: cache frame features once, then train and measure in minutes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Target = Annotated[
    str,
    typer.Argument(
        help="A dataset of the catalog, or a folder of videos by class; followed by :256p, its transcoded copies."
    ),
]
Recipe = Annotated[str, typer.Option(help="Student, teacher and hyper-parameters, by name in the catalog.")]
SweepRecipe = Annotated[
    str | None, typer.Option("--recipe", help="By default those of the sweep whose features are cached, else lite.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Decode processes; one a core by default.")]
Deadline = Annotated[
    float, typer.Option(min=0.1, max=86400, help="Seconds without a new frame after which a video is given up.")
]
Cluster = Annotated[str, typer.Option(help="Who extracts shards: a cluster of the catalog, or this process (inline).")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait while another process extracts this dataset.")]
Folds = Annotated[int, typer.Option(min=0, help="Cross-validate over K folds by group instead of the given split.")]
Seeds = Annotated[int | None, typer.Option(min=1, help="Number of seeds, from 0.")]
SweepName = Annotated[
    str,
    typer.Option(
        "--experiment", "--sweep", help="A sweep of the catalog, such as table1 .. table5, figure4, or all of these."
    ),
]
CatalogPath = Annotated[
    str | None,
    typer.Option(
        "--catalog",
        help="Catalog file; by default $DYNAPROP_CATALOG, ./catalog.yaml, or the one that comes with dynaprop.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Prefect's log, and tracebacks of errors.")]


@app.command()
def run(
    target: Target,
    recipe: Recipe = "lite",
    sweep: SweepName = "default",
    folds: Folds = 0,
    seeds: Seeds = None,
    device: Device = "auto",
    workers: Workers = None,
    wait: Wait = False,
    cluster: Cluster = "inline",
    catalog: CatalogPath = None,
    verbose: Verbose = False,
) -> None:
    """The whole way: extract features, train the heads, sweep, print the results and write the report."""
    workspace = _check(target, recipe, catalog, sweep, cluster)
    from dynaprop.pipeline.io.paths import storage_path

    options: dict[str, Any] = {
        "recipe": recipe,
        "folds": folds,
        "seeds": _seeds(seeds),
        "device": device,
        "workers": workers,
        "wait": wait,
        "cluster": cluster,
        "catalog": catalog,
    }
    if names_server():
        with prefect_server():
            from dynaprop.flows.reproduce import reproduce

            page = reproduce(target, sweep=sweep, **options)
    else:
        from dynaprop.flows.commands.run import run as go_the_way

        page = go_the_way(workspace, experiment=sweep, **options)
    _say_page(storage_path(page))


@app.command()
def extract(
    target: Target,
    recipe: Recipe = "lite",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what to expect: clips, bytes, time.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed videos again.")] = False,
    device: Device = "auto",
    workers: Workers = None,
    deadline: Deadline = 60.0,
    wait: Wait = False,
    cluster: Cluster = "inline",
    catalog: CatalogPath = None,
    verbose: Verbose = False,
) -> None:
    """Decode every video once and cache its frame features; goes on where it was interrupted."""
    workspace = _check(target, recipe, catalog, cluster=cluster)
    if dry_run:
        from dynaprop.flows.commands.extract import expect

        answer(expect(workspace, device=device, retry_failed=retry_failed, workers=workers))
    elif names_server():
        with prefect_server():
            from dynaprop.flows.extract_features import extract_features

            extract_features(target, recipe, device, retry_failed, workers, deadline, catalog, wait, cluster)
    else:
        from dynaprop.flows.commands.extract import extract as extract_here

        extract_here(
            workspace,
            device=device,
            retry_failed=retry_failed,
            workers=workers,
            deadline=deadline,
            wait=wait,
            cluster=cluster,
        )


@app.command()
def transcode(
    target: Annotated[str, typer.Argument(help="A dataset of the catalog, or a folder of videos by class.")],
    short_side: Annotated[
        int, typer.Option(min=2, max=4320, help="Pixels of the copies' shorter side, even; nothing is enlarged.")
    ] = 256,
    workers: Workers = None,
    deadline: Deadline = 60.0,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another process transcodes this dataset.")] = False,
    catalog: CatalogPath = None,
    verbose: Verbose = False,
) -> None:
    """Copy every video once at a small size, to decode faster; the copies are used as TARGET:256p."""
    _check_originals(target, catalog)
    if names_server():
        with prefect_server():
            from dynaprop.flows.transcode import transcode

            transcode(target, short_side, workers, deadline, catalog, wait)
    else:
        from dynaprop.flows.commands.transcode import transcode as copy_videos

        copy_videos(
            target,
            short_side=short_side,
            workers=workers,
            deadline=deadline,
            catalog=catalog,
            wait=wait,
            reporter=TERMINAL,
        )


@app.command()
def train(
    target: Target,
    recipe: Recipe = "lite",
    folds: Folds = 0,
    seeds: Seeds = 1,
    n_s: Annotated[int | None, typer.Option(min=1, help="Student frames; the recipe's by default.")] = None,
    n_t: Annotated[int | None, typer.Option(min=1, help="Teacher frames; the recipe's by default.")] = None,
    device: Device = "auto",
    catalog: CatalogPath = None,
    verbose: Verbose = False,
) -> None:
    """Train all models on cached features and keep them as checkpoints."""
    workspace = _check(target, recipe, catalog)
    options: dict[str, Any] = {
        "seeds": _seeds(seeds) or (0,),
        "folds": folds,
        "n_s": n_s,
        "n_t": n_t,
        "device": device,
    }
    if names_server():
        with prefect_server():
            from dynaprop.flows.train_heads import train_heads

            report = train_heads(target, recipe, catalog=catalog, **options)
    else:
        from dynaprop.flows.commands.train import train as train_here

        report = train_here(workspace, **options)
    from dynaprop.flows.terminal.table import print_reports

    print_reports([report], folds=folds, workspace=workspace)


@app.command()
def sweep(
    target: Target,
    recipe: SweepRecipe = None,
    sweep: SweepName = "default",
    folds: Folds = 0,
    seeds: Seeds = None,
    device: Device = "auto",
    catalog: CatalogPath = None,
    verbose: Verbose = False,
) -> None:
    """Train and measure every model of a sweep on cached features; goes on where it was interrupted."""
    workspace = _check(target, recipe, catalog, sweep)
    options: dict[str, Any] = {"recipe": recipe, "folds": folds, "seeds": _seeds(seeds), "device": device}
    if names_server():
        with prefect_server():
            from dynaprop.flows.evaluate_sweep import evaluate_sweep

            reports = evaluate_sweep(target, sweep=sweep, catalog=catalog, **options)
    else:
        from dynaprop.flows.commands.sweep import sweep as sweep_here

        reports = sweep_here(workspace, experiment=sweep, **options)
    from dynaprop.flows.terminal.table import print_reports

    print_reports(reports, folds=folds, workspace=workspace)


@app.command()
def finetune(
    target: Target,
    recipe: Recipe = "lite",
    init: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Begin with the Dynamic-STE of this run, trained on cached features."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each stage that is trained; the recipe's by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    n_s: Annotated[int | None, typer.Option(min=1, help="Student frames; the recipe's by default.")] = None,
    n_t: Annotated[int | None, typer.Option(min=1, help="Teacher frames; the recipe's by default.")] = None,
    device: Device = "auto",
    workers: Workers = None,
    deadline: Deadline = 60.0,
    catalog: CatalogPath = None,
    verbose: Verbose = False,
) -> None:
    """Train backbones and heads end to end; goes on after the last finished epoch.

    On several GPUs: torchrun --nproc-per-node N -m dynaprop.flows.cli finetune TARGET ...
    """
    options: dict[str, Any] = {
        "recipe": recipe,
        "init": init,
        "epochs": epochs,
        "seed": seed,
        "n_s": n_s,
        "n_t": n_t,
        "device": device,
        "workers": workers,
        "deadline": deadline,
        "catalog": catalog,
    }
    if not is_first():  # of several processes, started by torchrun, the first has the flow run
        from dynaprop.heads.finetune.run import run_finetuning

        run_finetuning(target, reporter=TERMINAL, **options)
        return
    workspace = _check(target, recipe, catalog)
    if names_server():
        with prefect_server():
            from dynaprop.flows.finetune import finetune

            report = finetune(target, **options)
    else:
        from dynaprop.heads.finetune.run import run_finetuning

        report = run_finetuning(target, reporter=TERMINAL, **options)
    from dynaprop.flows.terminal.table import print_reports

    print_reports([report], folds=0, workspace=workspace)


@app.command()
def serve(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Of the server on loopback, 4200 by default; 0 for any free one."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Flow runs at a time; others wait.")] = 1,
    verbose: Verbose = False,
) -> None:
    """Offer all flows as deployments of a Prefect server with its UI, until Ctrl-C."""
    if port is not None and (url := named_server()):
        raise UsageError(
            f"--port {port} is of a server of its own, and PREFECT_API_URL names {without_password(url)}: leave one of "
            "them out"
        )
    with prefect_server(port=4200 if port is None else port, lasting=True):
        from dynaprop.flows.serve import serve_flows

        code = serve_flows(limit=limit)
    raise typer.Exit(code)


@app.command()
def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Names or folders of runs, or datasets (their newest run).")
    ],
    videos: Annotated[
        list[str] | None, typer.Option("--videos", help="Show this video frame by frame; may be given several times.")
    ] = None,
    output: Annotated[str | None, typer.Option(help="Page or folder; the first run's folder by default.")] = None,
    catalog: CatalogPath = None,
    verbose: Verbose = False,
) -> None:
    """Write runs as one self-contained page, with its figures as PNG and their data as parquet beside it."""
    from dynaprop.flows.commands.report import report as write_report

    command = shell_line("dynaprop", *sys.argv[1:])
    page = write_report(runs, videos=videos or (), output=output, catalog=catalog, command=command)
    _say_page(page)


@app.command()
def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Folder of an exported model; or a run, a dataset (its newest run), a checkpoint."
        ),
    ],
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Files, or folders to search for videos.")],
    n_s: Annotated[int | None, typer.Option(min=1, help="Student frames, where a run has kept several.")] = None,
    n_t: Annotated[int | None, typer.Option(min=1, help="Teacher frames, the same.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the training; the lowest kept by default.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to name.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for failed videos, too.")] = False,
    timeline: Annotated[
        str | None, typer.Option(metavar="FILE.png", help="Draw a single video: scores over time, and attention.")
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    deadline: Deadline = 60.0,
    catalog: CatalogPath = None,
    verbose: Verbose = False,
) -> None:
    """Recognise videos: class, confidence, cost and milliseconds by stage; fails (1) where a video does."""
    from dynaprop.flows.commands.predict import predict as recognise

    failed = recognise(
        model,
        videos,
        n_s=n_s,
        n_t=n_t,
        seed=seed,
        top=top,
        as_json=as_json,
        timeline=timeline,
        device=device,
        workers=workers,
        deadline=deadline,
        catalog=catalog,
    )
    raise typer.Exit(1 if failed else 0)


@app.command()
def export(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run, a dataset or folder of videos (its newest run), or a checkpoint."),
    ],
    model: Annotated[
        str, typer.Option(help="student, student-kd, teacher, static-avg, static-weighted or dynamic.")
    ] = "dynamic",
    n_s: Annotated[int | None, typer.Option(min=1, help="Student frames; the recipe's by default.")] = None,
    n_t: Annotated[int | None, typer.Option(min=1, help="Teacher frames; the recipe's by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the training; the lowest kept by default.")] = None,
    output: Annotated[str | None, typer.Option(help="The folder; in $DYNAPROP_HOME/exported by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older export.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="ONNX files, too, each compared with torch.")] = False,
    catalog: CatalogPath = None,
    verbose: Verbose = False,
) -> None:
    """Write a trained model as one folder that needs neither dataset nor catalog: weights, classes, model card."""
    from dynaprop.flows.commands.export import export as write_export

    folder = write_export(
        run, model=model, n_s=n_s, n_t=n_t, seed=seed, output=output, force=force, onnx=onnx, catalog=catalog
    )
    answer(f"model: {folder}")
    answer(f"card:  {folder / 'README.md'}")


@app.command()
def datasets(
    gc: Annotated[
        bool, typer.Option("--gc", help="Delete cached features that no backbone of the catalog names.")
    ] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Name every video that failed or is partial, and why.")
    ] = False,
    duplicates: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Instead list the same files and near-identical videos of a dataset or folder of videos.",
        ),
    ] = None,
    catalog: CatalogPath = None,
    verbose: Verbose = False,
) -> None:
    """List datasets: what exists, what is cached, what failed."""
    if duplicates is not None:
        if gc or failed:
            raise UsageError("--duplicates stands alone: leave out --gc and --failed")
        from dynaprop.flows.commands.duplicates import print_duplicates

        print_duplicates(duplicates, catalog)
        return
    from dynaprop.flows.commands.datasets import collect_garbage, print_datasets
    from dynaprop.pipeline.catalog.parser import load_catalog
    from dynaprop.pipeline.workspace import home

    entries = load_catalog(Path(catalog) if catalog else None)
    if gc:
        collect_garbage(entries, home())
    print_datasets(entries, home(), failed=failed)


@app.command()
def verify(
    target: Target,
    recipe: Recipe = "lite",
    deep: Annotated[
        bool, typer.Option("--deep", help="Extract a random sample of videos once more, too, and compare.")
    ] = False,
    sample: Annotated[int, typer.Option(min=1, help="Videos of the deep check.")] = 16,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sample; a random one by default.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Recompute what is wrong, and check that again.")] = False,
    wait: Wait = False,
    device: Device = "auto",
    workers: Workers = None,
    catalog: CatalogPath = None,
    verbose: Verbose = False,
) -> None:
    """Check every cached feature (shard present, features finite, checksum right) and every file of results."""
    from dynaprop.flows.commands.verify import DeepOptions, repair_features, verify_features
    from dynaprop.pipeline.machine import resolve_device
    from dynaprop.pipeline.workspace import open_workspace

    workspace = open_workspace(target, recipe, catalog, reporter=TERMINAL)
    if device != "auto":
        resolve_device(device)  # refused even where it is not needed
    options = DeepOptions(sample=sample, seed=seed, device=device, workers=workers) if deep else None
    if repair:
        repair_features(workspace, deep=options, wait=wait, device=device, workers=workers)
    else:
        verify_features(workspace, deep=options)


_INTERRUPTED = "interrupted; the same command goes on where it stopped"
_ABANDONED = "interrupted"
_STOPPED = "no longer serving; a flow that was running goes on where it stopped when it is asked for again"


def main() -> None:
    """Run the command line: exit code 0, 1 (failed), 2 (wrong use), 130, 143 or 129 (Ctrl-C, SIGTERM, SIGHUP)."""
    verbose = any(argument in ("-v", "--verbose") for argument in sys.argv[1:])
    serving = sys.argv[1:2] == ["serve"]
    prepare_environment(verbose=verbose or serving)
    make_harmless()
    message = _ABANDONED if sys.argv[1:2] in (["predict"], ["export"]) else _INTERRUPTED
    with interruptible(_STOPPED, patience=13.0) if serving else interruptible(message):
        code = _run(verbose)
    sys.exit(code)


def _run(verbose: bool) -> int:
    try:
        for argument in sys.argv[1:]:
            require_utf8_locale(argument, where="the command line")
        code = int(app(standalone_mode=False) or 0)
    except SystemExit as end:
        code = int(end.code or 0)
    except BrokenPipeError:  # of `| head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left goes nowhere
        code = 1
    except Exception as error:
        if hasattr(error, "format_message"):  # of a command line that typer does not understand
            return _wrong_use(error)
        # Prefect turns an interrupt that hits its own code into other errors.
        if not interrupted():
            complain(_one_line(error), error=error if verbose else None)
        code = error.exit_code if isinstance(error, DynapropError) else 1
    return code


def _wrong_use(error: Any) -> int:
    """Show what typer says, which repeats words of the command line: `*` of a shell stands for names of files."""
    from typer.rich_utils import rich_format_error

    error.message = printable(error.message)
    rich_format_error(error)
    return int(error.exit_code)


def _one_line(error: Exception) -> str:
    text = " ".join(as_shown(error).split())
    text = text if len(text) < 1000 else f"{text[:700]} ... {text[-200:]}"
    if isinstance(error, DynapropError):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    return f"{type(error).__name__}: {text} (-v shows where)"


def _check(
    target: str, recipe: str | None, catalog: str | None, sweep: str | None = None, cluster: str = "inline"
) -> "Workspace":
    """Refuse unknown names before anything is imported that takes seconds."""
    from dynaprop.pipeline.workspace import open_workspace

    workspace = open_workspace(target, recipe, catalog, sweep=sweep, reporter=TERMINAL)
    workspace.catalog.cluster(cluster)
    workspace.require_root()
    return workspace


def _check_originals(target: str, catalog: str | None) -> None:
    from dynaprop.pipeline.workspace import open_originals

    dataset = open_originals(target, catalog)
    if dataset.generate is None:
        dataset.require_root()


def _seeds(count: int | None) -> tuple[int, ...] | None:
    return tuple(range(count)) if count else None


def _say_page(page: "StoragePath") -> None:
    answer(f"report:  {page}")
    answer(f"figures: {page.parent}/figures")


if __name__ == "__main__":
    main()
