"""Run folders as training leaves them, without any training."""

import json


def write_run(folder, config, values, speeds=(), **record):
    """A run that evaluates at each of its steps, where it has these losses."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    run = {"config_file": "experiments/some.py", "headline": "bits_per_byte", "ended": "done"}
    (folder / "run.json").write_text(json.dumps(run | record))
    lines = []
    for step, value in enumerate(values, start=1):
        numbers = {"step": step, "loss": value, "seconds": 60.0 * step}
        speed = {"targets_per_second": speeds[step - 1]} if speeds else {}
        lines.append(numbers | speed | {"split": "train"})
        lines.append(numbers | {"split": "validation", "bits_per_byte": 2 * value})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
