"""Which architecture solves which problem, each as often as there are seeds.

    python -m experiments.benchmarks.architectures --out=FILE.jsonl [--figure=FILE.png]

Trains the experiments formal, mqar and adding with the numbers below, and appends a line to the
file for each as soon as it is evaluated; what the file has, with the same numbers, is not trained
again, so that it can be stopped and started, and several can share a file with --problems. The
table says the median of seeds and the best; a seed that diverged counts as chance. As many steps
for everybody, few of them: what is not solved here might be with more. Only tanh recurrences have a
learning rate of their own, a smaller one.
"""

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags, logging
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments import adding, formal, mqar
from experiments.benchmarks.harness import machine
from experiments.common import architectures
from recattn_jax.errors import Interrupted, NonFiniteError
from recattn_jax.training import Experiment, RunFolder, fit, load_run
from recattn_jax.training.evaluation import evaluate

OUT = flags.DEFINE_string("out", None, "File of results, one JSON line each.", required=True)
FIGURE = flags.DEFINE_string("figure", "", "Where to draw the table; empty draws none.")
SEEDS = flags.DEFINE_integer("seeds", 3, "How often each is trained.")
PROBLEMS = flags.DEFINE_list("problems", None, "Which ones are trained; all of them by default.")

# The same for all, and small, so that all of it takes hours and not days.
SIZES = dict(batch=32, evaluate_every=500, log_every=500, save_every=10_000)
TANH = ("rnn", "s1")  # their recurrence is one of tanh
# For attention alone the transformer stands.
MIXERS = tuple(mixer for mixer in architectures.NAMES if mixer != "attention")
RATES = {mixer: 1e-3 if mixer in TANH else 3e-3 for mixer in MIXERS}


class Setting(NamedTuple):
    """A problem.

    Args:
      file: the module of its experiment.
      numbers: of its config, beside `SIZES`.
      metric: what is told: an accuracy, or the mean squared error.
      chance: what guessing reaches.
      solved: what is reached where nothing is left to learn.
    """

    file: Any
    numbers: Mapping[str, Any]
    metric: str
    chance: float
    solved: float

    def told(self, value: float) -> str:
        """A value as the table has it: per cent, or an error."""
        return f"{100 * value:.1f}" if self.solved else f"{value:.1e}"

    def stands(self, value: float) -> float:
        """Where a value stands between chance, 0, and solved, 1."""
        return 1 - abs(self.solved - value) / abs(self.solved - self.chance)


def settings() -> dict[str, Setting]:
    """The problems by name."""

    def language(name: str, width: int, steps: int) -> Setting:
        lengths = dict(shown=20, longest=250)
        numbers = dict(problem=name, width=width, steps=steps, **lengths)
        return Setting(formal, numbers, "accuracy", 1 / formal.PROBLEMS[name].answers, 1.0)

    recall = dict(vocabulary=256, length=32, width=64, steps=1500)
    added = dict(length=100, readout="last", width=32, steps=1000)
    return {
        "parity": language("parity", 32, 1500),
        "cycle_navigation": language("cycle_navigation", 64, 3000),
        "modular_arithmetic": language("modular_arithmetic", 64, 6000),
        "bucket_sort": language("bucket_sort", 32, 2000),
        "reverse": language("reverse", 32, 2000),
        "mqar": Setting(mqar, recall, "accuracy", 1 / 128, 1.0),
        "adding": Setting(adding, added, "loss", 1 / 6, 0.0),
    }


class Cell(NamedTuple):
    """What seeds of an architecture reached on a problem."""

    median: float
    best: float
    seeds: int


def chosen(setting: Setting, mixer: str, seed: int) -> dict[str, Any]:
    """The numbers of a run that are not those of its experiment file."""
    return dict(**SIZES, **setting.numbers, peak_lr=RATES[mixer], mixer=mixer, seed=seed)


def train(setting: Setting, numbers: Mapping[str, Any]) -> float:
    """Trains one and returns what the test says of its best checkpoint."""
    config: ConfigDict = setting.file.get_config()
    config.update(numbers)
    experiment: Experiment = setting.file.build(config)
    file = f"experiments/{setting.file.__name__.rsplit('.', 1)[-1]}.py"
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.open(
            Path(folder) / "run", config=config.to_dict(), config_file=file, argv=[]
        )
        fit(experiment, experiment.data(), run, say=lambda line: None)
        trained = load_run(Path(folder) / "run")
        test = trained.experiment.data().evaluation["test"]
        found = evaluate(trained.experiment, trained.params, test, trained.vocabularies)
    return found[setting.metric]


def table(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Cell]]:
    """The cells by architecture and problem; those with no result are left out."""
    cells: dict[str, dict[str, Cell]] = {}
    for mixer in MIXERS:
        for name, setting in settings().items():
            values = [
                setting.chance if result["value"] is None else result["value"]
                for result in results
                if result["problem"] == name
                and result["numbers"] == chosen(setting, mixer, result["numbers"]["seed"])
            ]
            if values:
                best = max(values, key=setting.stands)
                cell = Cell(statistics.median(values), best, len(values))
                cells.setdefault(mixer, {})[name] = cell
    return cells


def draw(cells: Mapping[str, Mapping[str, Cell]], path: Path) -> None:
    """A row an architecture, a column a problem; the colour is where the median stands."""
    problems = settings()
    colours = np.full((len(cells), len(problems)), np.nan)
    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row, found in enumerate(cells.values()):
        for column, (name, setting) in enumerate(problems.items()):
            if name not in found:
                continue
            median, best, _ = found[name]
            colours[row, column] = setting.stands(median)
            dark = colours[row, column] < 0.5
            axes.text(
                column,
                row,
                f"{setting.told(median)}\n{setting.told(best)}",
                ha="center",
                va="center",
                fontsize="small",
                color="white" if dark else "black",
            )
    image = axes.imshow(np.clip(colours, 0, 1), vmin=0, vmax=1, aspect="auto", cmap="viridis")
    figure.colorbar(image, ax=axes, label="median, from chance (0) to solved (1)")
    axes.set_yticks(range(len(cells)), list(cells))
    axes.set_xticks(range(len(problems)), [name.replace("_", "\n") for name in problems])
    axes.set_title("Median of seeds, and below it the best: % right, adding: mean squared error")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main(argv: list[str]) -> None:
    """Trains what is missing, prints the table, and draws it where asked to."""
    del argv
    logging.set_verbosity(logging.WARNING)
    out = Path(OUT.value)
    print(machine())
    try:
        out.open("a", encoding="utf-8").close()
    except OSError as error:
        raise app.UsageError(f"--out={out}: cannot be written ({error.strerror})") from None
    if unknown := set(PROBLEMS.value or ()) - set(settings()):
        raise app.UsageError(f"--problems: {sorted(unknown)}; known are {', '.join(settings())}")
    for seed in range(SEEDS.value):
        for name in PROBLEMS.value or settings():
            for mixer in MIXERS:
                setting = settings()[name]
                numbers = chosen(setting, mixer, seed)
                key = {"problem": name, "numbers": numbers}
                if any(key.items() <= line.items() for line in read(out)):
                    continue
                value, told = None, ""
                try:
                    value = train(setting, numbers)
                    told = setting.told(value)
                except NonFiniteError as error:  # one of many: the others go on
                    told = str(error)
                except Interrupted as error:
                    raise SystemExit(error.exit_code) from None  # the file has the others
                line = key | {"value": value, "machine": machine()}
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{name} {mixer} seed {seed}: {told}", flush=True)
                jax.clear_caches()  # or the programs of all of them stay
    cells = table(read(out))
    for mixer, found in cells.items():
        for name, cell in found.items():
            if cell.seeds < SEEDS.value:
                print(f"{name} {mixer}: {cell.seeds} of {SEEDS.value} seeds so far")
    print("median / best of seeds".ljust(24) + "".join(f"{name[:16]:>18}" for name in settings()))
    for mixer, found in cells.items():
        row = [
            "/".join(map(setting.told, found[name][:2])) if name in found else ""
            for name, setting in settings().items()
        ]
        print(f"{mixer:24}" + "".join(f"{text:>18}" for text in row))
    if FIGURE.value:
        draw(cells, Path(FIGURE.value))


def read(out: Path) -> list[dict[str, Any]]:
    """The lines of the file, if it is there."""
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    app.run(main)
