"""What tensorstore never frees, asked of it less often.

Each answer of tensorstore that it turns from JSON into Python (0.1.76 to 0.1.86 at least) stays in
memory for good: every dict, list, key and value of it has one reference too many. At every save
Orbax asks for counters of bytes, for a line of its log, and for each array where its folder is.
"""

import copy
import functools
from typing import Any

import tensorstore

FEW = 8  # folders that are written to at a time


@functools.cache
def stop_leaks() -> None:
    """Answers what Orbax asks tensorstore without leaving anything behind; once is enough.

    Counters of bytes are none, so Orbax leaves that line of its log out. What a folder is called in
    JSON is asked once for all arrays of a checkpoint.
    """
    tensorstore.experimental_collect_matching_metrics = lambda *_, **__: []
    spec_class: Any = tensorstore.KvStore.Spec
    ask = spec_class.to_json
    answers: dict[Any, Any] = {}

    @functools.wraps(ask)
    def to_json(spec: Any, *how: Any, **more: Any) -> Any:
        question = repr(spec), how, tuple(more.items())
        if question not in answers:
            if len(answers) >= FEW:
                answers.clear()
            answers[question] = ask(spec, *how, **more)
        return copy.deepcopy(answers[question])

    spec_class.to_json = to_json
