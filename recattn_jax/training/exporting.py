"""Writing a trained model as programs that need nothing of this project: StableHLO and weights."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from recattn_jax import untrusted
from recattn_jax.data import words
from recattn_jax.decoding.stepping import fresh_state, language_model_step
from recattn_jax.errors import StorageError, UserError, summary
from recattn_jax.files import new_folder
from recattn_jax.layers.base import Context
from recattn_jax.tasks import Classification, LanguageModel, Tagging, Task
from recattn_jax.training.experiment import Experiment
from recattn_jax.training.loading import Run
from recattn_jax.training.machine import commit, versions
from recattn_jax.training.metrics import read_records
from recattn_jax.training.precision import path_name

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "tpu")
MULTIPLES = (1, 16, 32, 64, 128, 256, 512, 1024)
"""Of which a program may take all lengths; recurrences need 16, the steps of a block of theirs."""
LOADER = Path(__file__).with_name("export_loader.py")
"""Is written into the folder as `load.py`, so it imports nothing of this project."""
FILLED = 40
"""Steps of the rows that a program of all lengths is tried with: it fills them up itself."""
CLOSE, NEAR = 1e-4, 3e-2
"""How far logits may be from the run's, of the largest: in float32 on a CPU, and elsewhere."""

_NO_METRICS = ("step", "seconds")


class Program(NamedTuple):
    """A function to write.

    Attributes:
      file: its name.
      exported: what jax made of it.
      described: what `model.json` says of it.
    """

    file: str
    exported: export.Exported
    described: dict[str, Any]


class Weights(NamedTuple):
    """Parameters as a list: `names[i]` is that of `leaves[i]`.

    Attributes:
      names: paths, such as `body/layers_0/recurrent_kernel`.
      leaves: arrays.
      tree: how they make up the parameters.
    """

    names: list[str]
    leaves: list[Any]
    tree: Any

    @classmethod
    def of(cls, params: Any) -> "Weights":
        """Flattens parameters, in the order of their tree."""
        found, tree = jax.tree_util.tree_flatten_with_path(params)
        return cls([path_name(path) for path, _ in found], [leaf for _, leaf in found], tree)


def export_run(run: Run, folder: str | Path, lengths: Sequence[int]) -> dict[str, Any]:
    """Writes a trained language model, classifier or tagger so that it runs elsewhere.

    The folder holds programs for any number of rows (`whole.bin`, and `step.bin` where a language
    model streams), `weights.safetensors`, `vocabularies.json`, `model.json`, which describes them,
    and `load.py`, which runs them, with `words.py` where it reads words. What it gives is compared
    with what the run gives before the folder takes its name.

    Programs are for all of `PLATFORMS`, from one tracing: where kernels are chosen by the device,
    they are those of the device at hand, but never one that is made for a single kind.

    Args:
      run: what `load_run` gave.
      folder: does not exist yet.
      lengths: of the rows, each a program of its own; none for one program of all lengths.

    Returns:
      What `model.json` holds.

    Raises:
      UserError: the folder exists, the task is another, the model cannot be exported like this, or
        a package that writes it is not installed.
      StorageError: the folder cannot be written.

    Example:
      export_run(load_run("runs/a"), "exported", lengths=())
    """
    check_exportable(run)
    _check_packages()
    with new_folder(Path(folder)) as partial:
        weights = Weights.of(run.params)
        wholes = whole_programs(run.experiment, weights, lengths)
        steps = [step_program(run.experiment, weights)] if streams(run.experiment) else []
        for program in (*wholes, *steps):
            (partial / program.file).write_bytes(program.exported.serialize())
        described = _describe(run, weights, wholes, steps)
        (partial / "model.json").write_text(json.dumps(described, indent=1) + "\n", "utf-8")
        _save(weights, partial / "weights.safetensors")
        shutil.copyfile(run.path / "vocabularies.json", partial / "vocabularies.json")
        shutil.copyfile(LOADER, partial / "load.py")
        if described["input"]["kind"] == "word":
            shutil.copyfile(words.__file__, partial / "words.py")
        _check_same(run, partial, [*wholes, *steps])
    return described


def can_export(task: Task) -> bool:
    """Whether runs of this task are exported."""
    return isinstance(task, LanguageModel | Classification | Tagging)


def check_exportable(run: Run) -> None:
    """Raises if a run's task is none of those that are exported.

    Args:
      run: what `load_run` gave.

    Raises:
      UserError: naming those that are.
    """
    task = run.experiment.task
    if not can_export(task):
        raise UserError(
            f"{run.path} is a run of {type(task).__name__}, which is not exported; language models,"
            " classifiers and taggers are"
        )


def streams(experiment: Experiment) -> bool:
    """Whether there is a step to export: of a language model that streams."""
    return isinstance(experiment.task, LanguageModel) and experiment.model.streams


def whole_programs(
    experiment: Experiment, weights: Weights, lengths: Sequence[int]
) -> list[Program]:
    """The function of whole rows, `(weights, inputs, segments) -> [logits, ...]`.

    Args:
      experiment: of a language model, a classifier or a tagger.
      weights: its parameters, or their shapes.
      lengths: T of each program; none for one program, of all multiples of the least of `MULTIPLES`
        that jax can do.

    Returns:
      A program each.

    Raises:
      UserError: the model cannot be exported, or not at all lengths at once.
    """
    if lengths:
        return [
            _whole(experiment, weights, length, length, f"whole_{length}.bin")
            for length in sorted(set(lengths))
        ]
    reason = ""
    for multiple in MULTIPLES:
        try:
            return [_whole(experiment, weights, multiple, None, "whole.bin")]
        except (jax.errors.InconclusiveDimensionOperation, UserError) as error:
            reason = summary(error)
    raise UserError(
        f"{type(experiment.model).__name__} cannot be exported for all lengths at once; name those"
        f" that are needed, as in --lengths=64,512 ({reason})"
    )


def _whole(
    experiment: Experiment, weights: Weights, multiple: int, most: int | None, file: str
) -> Program:
    spec = experiment.batch["inputs"]
    length = multiple if most else f"{multiple}*t"
    b, t, *_ = export.symbolic_shape(f"b, {length}")
    t = most or t
    inputs = jax.ShapeDtypeStruct((b, t, *spec.shape[2:]), spec.dtype)
    segments = jax.ShapeDtypeStruct((b, t), jnp.int32)

    def whole(leaves: list[Any], inputs: Any, segments: Any) -> list[Any]:
        params = jax.tree.unflatten(weights.tree, leaves)
        predictions, _ = experiment.model.apply(
            {"params": params}, inputs, None, Context(segments=segments)
        )
        return jax.tree.leaves(predictions)

    exported = _export(whole, _shapes(weights.leaves), inputs, segments)
    results = [
        {"name": "logits", "of": name, "each_step": len(aval.shape) == 3, **_array(aval)}
        for name, aval in zip(_predicted(experiment), exported.out_avals, strict=True)
    ]
    arguments = [
        {"name": "weights"},
        {"name": "inputs", **_array(inputs)},
        {"name": "segments", **_array(segments)},
    ]
    described = {"multiple": multiple, "most": most, "arguments": arguments, "results": results}
    return Program(file, exported, {"file": file, **described})


def step_program(experiment: Experiment, weights: Weights) -> Program:
    """The function of one step of a language model, `(weights, state, tokens) -> (logits, state)`.

    Args:
      experiment: of a language model that streams.
      weights: its parameters, or their shapes.

    Returns:
      The program; its state is a list of arrays, zeros before the first step.

    Raises:
      UserError: the model cannot be exported.
    """
    assert isinstance(experiment.task, LanguageModel)
    model, separator = experiment.model, experiment.task.separator
    tokens = jax.ShapeDtypeStruct(export.symbolic_shape("b"), jnp.int32)

    def stepper(leaves: list[Any]) -> Any:
        params = jax.tree.unflatten(weights.tree, leaves)
        return language_model_step(model, {"params": params}, separator)

    state = jax.eval_shape(
        lambda leaves, tokens: stepper(leaves)(tokens, None).state, _shapes(weights.leaves), tokens
    )
    leaves, tree = jax.tree.flatten(state)

    def step(weights: list[Any], state: list[Any], tokens: Any) -> tuple[Any, list[Any]]:
        stepped = stepper(weights)(tokens, jax.tree.unflatten(tree, state))
        return stepped.logits, jax.tree.leaves(stepped.state)

    exported = _export(step, _shapes(weights.leaves), leaves, tokens)
    described = {
        "file": "step.bin",
        "arguments": [{"name": "weights"}, {"name": "state"}, {"name": "tokens", **_array(tokens)}],
        "results": [{"name": "logits", **_array(exported.out_avals[0])}, {"name": "state"}],
        "state": [_array(leaf) for leaf in leaves],
    }
    return Program("step.bin", exported, described)


def _export(function: Callable[..., Any], *arguments: Any) -> export.Exported:
    try:
        return export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    except (NotImplementedError, ValueError) as error:
        # Of layers: an implementation for one kind of device, a length that does not fit, ...
        raise UserError(f"the model cannot be exported: {summary(error)}") from error


def _shapes(leaves: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]


def _array(leaf: Any) -> dict[str, Any]:
    shape = [n if isinstance(n, int) else str(n) for n in leaf.shape]
    return {"shape": shape, "dtype": leaf.dtype.name}


def _predicted(experiment: Experiment) -> list[str]:
    """The vocabularies that the last axes of the logits are of."""
    task = experiment.task
    if isinstance(task, Tagging):
        return ["tag", "label"] if task.intents else ["tag"]
    return ["label"] if isinstance(task, Classification) else ["text"]


def _describe(
    run: Run, weights: Weights, wholes: Sequence[Program], steps: Sequence[Program]
) -> dict[str, Any]:
    record = untrusted.read_object(run.path / "run.json")
    text = "series" if "series" in run.vocabularies else "text"
    vocabulary = run.vocabularies[text]
    functions: dict[str, Any] = {"whole": [program.described for program in wholes]}
    for program in steps:
        functions["step"] = program.described
    names = ("separator", "vocabulary_size")
    return {
        "format": FORMAT,
        "task": type(run.experiment.task).__name__,
        "experiment": Path(str(record["config_file"])).stem,
        "step": run.step,
        "metrics": _metrics(run),
        "commit": record.get("commit"),
        "exported_by": {"commit": commit(), **versions()},
        "platforms": list(PLATFORMS),
        "input": {
            "vocabulary": text,
            "kind": vocabulary.to_json()["kind"],
            **{name: getattr(vocabulary, name) for name in names if hasattr(vocabulary, name)},
        },
        "parameters": sum(leaf.size for leaf in weights.leaves),
        "functions": functions,
        "weights": [
            {"name": name, **_array(leaf)}
            for name, leaf in zip(weights.names, weights.leaves, strict=True)
        ],
    }


def _metrics(run: Run) -> dict[str, Any]:
    """What the validation of the step said, where there was one."""
    found: Mapping[str, Any] = {}
    for record in read_records(run.path / "metrics.jsonl"):
        if (record["step"], record["split"]) == (run.step, "validation"):
            found = record
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value) and key not in _NO_METRICS
    }


def _check_packages() -> None:
    try:
        import flatbuffers  # noqa: F401, PLC0415  (what jax serializes with)
        import safetensors  # noqa: F401, PLC0415
    except ImportError as error:
        raise UserError(
            f"an export needs flatbuffers and safetensors: pip install -e '.[export]' ({error})"
        ) from error


def _save(weights: Weights, file: Path) -> None:
    from safetensors import SafetensorError  # noqa: PLC0415  (only exports need it)
    from safetensors.numpy import save_file  # noqa: PLC0415

    arrays = {
        name: np.asarray(leaf, order="C")
        for name, leaf in zip(weights.names, weights.leaves, strict=True)
    }
    try:
        save_file(arrays, file)
    except SafetensorError as error:
        raise StorageError(f"cannot write {file}: {error}") from error
    shutil.copymode(file.with_name("model.json"), file)  # it lets nobody else read what it writes


def _check_same(run: Run, folder: Path, programs: Sequence[Program]) -> None:
    """Compares what was written with the run, by the loader that others will use."""
    from recattn_jax.training.export_loader import Exported  # noqa: PLC0415  (only exports need it)

    narrow = any("bf16" in program.exported.mlir_module() for program in programs)
    tolerance = CLOSE if jax.default_backend() == "cpu" and not narrow else NEAR
    exported, model, variables = Exported(folder), run.experiment.model, {"params": run.params}
    pairs: list[tuple[Any, Any]] = []
    for whole in exported.description["functions"]["whole"]:
        inputs = _made_up(run, whole["most"] or FILLED)
        segments = np.ones(inputs.shape[:2], np.int32)
        segments[1, inputs.shape[1] * 3 // 4 :] = 0
        wanted, _ = jax.jit(model.apply)(
            variables, inputs, None, Context(segments=jnp.asarray(segments))
        )
        pairs += zip(exported.whole(inputs, segments), jax.tree.leaves(wanted), strict=True)
    if streams(run.experiment):
        assert isinstance(run.experiment.task, LanguageModel)
        separator = run.experiment.task.separator
        step = jax.jit(language_model_step(model, variables, separator))
        starts = jnp.full(2, separator, jnp.int32)
        ours, theirs = fresh_state(step, starts), exported.zero_state(2)
        for tokens in (starts, *inputs.T[:3]):
            logits, ours, _ = step(tokens, ours)
            reached, theirs = exported.step(tokens, theirs)
            pairs.append((reached, logits))
    for got, right in pairs:
        got, right = np.asarray(got, np.float64), np.asarray(right, np.float64)
        apart = np.max(np.abs(got - right)) / max(np.max(np.abs(right)), 1e-30)
        if not apart <= tolerance:
            raise RuntimeError(f"what was exported differs from the run by {apart:.1e}")


def _made_up(run: Run, length: int) -> np.ndarray:
    """Two rows of inputs for the model of a run."""
    spec, random = run.experiment.batch["inputs"], np.random.default_rng(0)
    shape = (2, length, *spec.shape[2:])
    if not np.issubdtype(spec.dtype, np.integer):
        return random.normal(size=shape).astype(spec.dtype)
    size = getattr(run.vocabularies["text"], "vocabulary_size", 2)
    return random.integers(0, size, shape).astype(spec.dtype)
