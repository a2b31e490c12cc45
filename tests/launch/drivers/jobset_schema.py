"""The part of JobSet (v1alpha2) that is written, as a JSON schema that allows nothing else."""

from typing import Any

WORD = {"type": "string", "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$", "maxLength": 63}
TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 1}
VARIABLE = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}


def thing(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def many(items: dict[str, Any], most: int = 100) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


RULE = thing(
    {
        "action": {"enum": ["FailJob", "FailIndex", "Ignore", "Count"]},
        "onExitCodes": thing(
            {
                "containerName": WORD,
                "operator": {"enum": ["In", "NotIn"]},
                "values": many({"type": "integer", "minimum": 1, "maximum": 255}),
            }
        ),
    }
)
ENVIRONMENT = {
    "oneOf": [
        thing({"name": VARIABLE, "value": TEXT}),
        thing(
            {"name": VARIABLE, "valueFrom": thing({"fieldRef": thing({"fieldPath": TEXT})})},
        ),
    ]
}
CONTAINER = thing(
    {"name": WORD, "image": {"type": "string", "minLength": 1}, "command": many(TEXT, 1000)},
    env=many(ENVIRONMENT),
    resources=thing(
        {"limits": thing({}, **{"google.com/tpu": COUNT, "nvidia.com/gpu": COUNT})},
    ),
    volumeMounts=many(thing({"name": WORD, "mountPath": {"type": "string", "pattern": "^/"}})),
)
VOLUME = {
    "oneOf": [
        thing({"name": WORD, "emptyDir": thing({"medium": {"enum": ["", "Memory"]}})}),
        thing({"name": WORD, "persistentVolumeClaim": thing({"claimName": TEXT})}),
    ]
}
POD = thing(
    {
        # A policy of exit codes goes with no other.
        "restartPolicy": {"const": "Never"},
        "terminationGracePeriodSeconds": {"type": "integer", "minimum": 31},
        "containers": many(CONTAINER, 1),
    },
    nodeSelector=thing(
        {},
        **{
            "cloud.google.com/gke-tpu-accelerator": TEXT,
            "cloud.google.com/gke-tpu-topology": {
                "type": "string",
                "pattern": r"^\d+x\d+(x\d+)?$",
            },
            "cloud.google.com/gke-accelerator": TEXT,
        },
    ),
    volumes=many(VOLUME),
)
JOB = thing(
    {
        "parallelism": COUNT,
        "completions": COUNT,
        "completionMode": {"const": "Indexed"},
        "backoffLimit": {"const": 0},
        "podFailurePolicy": thing({"rules": many(RULE)}),
        "template": thing({"spec": POD}),
    }
)
FAILURE = thing(
    {
        "maxRestarts": {"type": "integer", "minimum": 0},
        "rules": many(
            thing(
                {
                    "action": {
                        "enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
                    },
                    "onJobFailureReasons": many(
                        {"enum": ["BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy"]}
                    ),
                }
            )
        ),
    }
)
JOBSET = thing(
    {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": thing(
            {"name": WORD, "namespace": WORD},
            labels={"type": "object", "additionalProperties": TEXT},
        ),
        "spec": thing(
            {
                "failurePolicy": FAILURE,
                "network": thing({"enableDNSHostnames": {"type": "boolean"}}),
                "replicatedJobs": many(
                    thing({"name": WORD, "replicas": COUNT, "template": thing({"spec": JOB})})
                ),
            }
        ),
    }
)
