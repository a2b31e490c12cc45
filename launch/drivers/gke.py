"""Jobs on Kubernetes: one JobSet each, written as YAML and handed to kubectl.

A pod that ends with a code that is final fails its job by rule, and that fails the set; any other
end restarts the whole set, since the processes of a job only run together.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from launch.drivers import calls, records
from launch.jobs import FINAL, START_AGAIN, Action, Job, State, Status
from recattn_jax.errors import UserError
from recattn_jax.files import write_atomically

_PORT = 8476
_POD = "main"
_GROUP = "worker"
_LEAVING = "it is being stopped"
_NAME_OF_GCLUSTER = 28  # its longest


@dataclass(frozen=True)
class TpuType:
    """How a family of slices is called here.

    Args:
      label: of the node pool.
      units: how many units of the type's number a chip is; older types count cores.
      dimensions: of a slice's shape.
    """

    label: str
    units: int
    dimensions: int


TPU_TYPES = {
    "v4": TpuType("tpu-v4-podslice", 2, 3),
    "v5litepod": TpuType("tpu-v5-lite-podslice", 1, 2),
    "v5p": TpuType("tpu-v5p-slice", 2, 3),
    "v6e": TpuType("tpu-v6e-slice", 1, 2),
}


@dataclass(frozen=True)
class Gke:
    """Runs jobs on a cluster that has the JobSet controller and that kubectl reaches.

    The accelerator is "cpu", "gpu:K", "nvidia-l4:K" (of that kind, for each host) or the type of a
    TPU slice, "v5litepod-16". The image holds the code, its folder is where the command starts.

    Args:
      image: of the container.
      namespace: of the cluster.
      claim: a claim of a volume that is mounted at the job's folder, for runs and checkpoints.
      queue: a local queue of Kueue; None where there is no Kueue.
      grace: seconds that a pod has to save after it was asked to stop.
      timeout: seconds after which kubectl is killed.

    Example:
      >>> Gke("image").plan(Job("a", ("true",), Path("runs"), "cpu"))[1].argv[:2]
      ('kubectl', 'apply')
    """

    image: str
    namespace: str = "default"
    claim: str | None = None
    queue: str | None = None
    grace: int = 300
    timeout: float = 120.0

    def plan(self, job: Job) -> Sequence[Action]:
        """See `Driver`."""
        file = records.place(job) / "jobset.yaml"
        return [
            Action(file=file, text=self.manifest(job)),
            Action(argv=self._kubectl("apply", f"--filename={file}")),
        ]

    def start(self, job: Job) -> None:
        """See `Driver`; what failed or is being stopped must be gone first, or stays as it is.

        Raises:
          UserError: the accelerator is unknown, or the cluster refuses the job.
        """
        write, apply = self.plan(job)
        with records.locked(records.place(job), wait=True):
            status = self.status(job)
            leaving = status.reason == _LEAVING
            if status.state in (State.DONE, State.RUNNING) and not leaving:
                return
            if status.state is State.FAILED or leaving:
                calls.must(self._delete(job, "true"), self.timeout + self.grace)
            assert write.file is not None
            write_atomically(write.file, write.text)
            calls.must(apply.argv, self.timeout)

    def status(self, job: Job) -> Status:
        """See `Driver`; the cluster makes the further attempts."""
        answer = calls.call(self._kubectl("get", "jobset", job.name, "--output=json"), self.timeout)
        if answer.code:
            if "(NotFound)" in answer.err:  # and not a helper of kubectl's that is not found
                return Status(State.UNKNOWN)
            return Status(State.WAITING, None, answer.last_line)
        jobset = json.loads(answer.out)
        if "deletionTimestamp" in jobset.get("metadata", {}):
            return Status(State.RUNNING, None, _LEAVING)
        status = jobset.get("status", {})
        for condition in status.get("conditions", []):
            if condition.get("status") != "True":
                continue
            if condition.get("type") == "Completed":
                return Status(State.DONE, 0)
            if condition.get("type") == "Failed":
                return Status(State.FAILED, *self._why(job, condition.get("message", "")))
        ready = sum(group.get("ready", 0) for group in status.get("replicatedJobsStatus", []))
        return Status(State.RUNNING if ready else State.WAITING)

    def stop(self, job: Job) -> None:
        """See `Driver`; once its pods have saved, the cluster has no such job.

        Raises:
          UserError: kubectl failed.
        """
        calls.must(self._delete(job, "false"), self.timeout)

    def manifest(self, job: Job) -> str:
        """The JobSet, as YAML.

        Raises:
          UserError: the accelerator is unknown, or does not fit the hosts.
        """
        # Nothing is shared between the parts, so that no anchors are written.
        return yaml.safe_dump(self._jobset(job), sort_keys=False, allow_unicode=True, width=100)

    def gcluster(self, job: Job) -> tuple[str, ...]:
        """The command of Google's Cluster Toolkit that starts the same.

        Raises:
          UserError: the name is too long for it.
        """
        if len(job.name) > _NAME_OF_GCLUSTER:
            raise UserError(
                f"job name {job.name!r}: gcluster takes at most {_NAME_OF_GCLUSTER} letters"
            )
        return (
            *("gcluster", "job", "submit", f"--name={job.name}", f"--image={self.image}"),
            f"--command={shlex.join(job.argv)}",
            *(f"--compute-type={job.accelerator}", "--num-slices=1", f"--restarts={job.retries}"),
            *(f"--restart-on-exit-codes={START_AGAIN}", f"--grace-period={self.grace}s"),
            *(f"--env={name}={value}" for name, value in job.environment.items()),
        )

    def _why(self, job: Job, message: str) -> tuple[int | None, str]:
        # Only the job inside the set tells the exit code, in the words of Kubernetes.
        selector = f"--selector=jobset.sigs.k8s.io/jobset-name={job.name}"
        answer = calls.call(self._kubectl("get", "jobs", selector, "--output=json"), self.timeout)
        code = re.search(r"exit code (\d+)", answer.out) if answer.code == 0 else None
        return (int(code[1]) if code else None), message

    def _kubectl(self, *words: str) -> tuple[str, ...]:
        return ("kubectl", *words, f"--namespace={self.namespace}")

    def _delete(self, job: Job, wait: str) -> tuple[str, ...]:
        return self._kubectl("delete", "jobset", job.name, "--ignore-not-found", f"--wait={wait}")

    def _jobset(self, job: Job) -> dict[str, Any]:
        labels = {"labels": {"kueue.x-k8s.io/queue-name": self.queue}} if self.queue else {}
        fail_set = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": job.name, "namespace": self.namespace, **labels},
            "spec": {
                "failurePolicy": {"maxRestarts": job.retries, "rules": [fail_set]},
                "network": {"enableDNSHostnames": True},
                "replicatedJobs": [
                    {"name": _GROUP, "replicas": 1, "template": {"spec": self._group(job)}}
                ],
            },
        }

    def _group(self, job: Job) -> dict[str, Any]:
        final = {"containerName": _POD, "operator": "In", "values": list(FINAL)}
        return {
            "parallelism": job.hosts,
            "completions": job.hosts,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": final}]},
            "template": {"spec": self._pod(job)},
        }

    def _pod(self, job: Job) -> dict[str, Any]:
        selector, limits = resources(job)
        mounts = [{"name": "memory", "mountPath": "/dev/shm"}]
        volumes: list[dict[str, Any]] = [{"name": "memory", "emptyDir": {"medium": "Memory"}}]
        if self.claim:
            mounts.append({"name": "runs", "mountPath": str(job.folder.absolute())})
            claim = {"claimName": self.claim}
            volumes.append({"name": "runs", "persistentVolumeClaim": claim})
        container: dict[str, Any] = {
            "name": _POD,
            "image": self.image,
            "command": [unexpanded(word) for word in job.argv],
        }
        if environment := variables(job):
            container["env"] = environment
        if limits:
            container["resources"] = {"limits": limits}
        return {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": self.grace,
            **({"nodeSelector": selector} if selector else {}),
            "containers": [{**container, "volumeMounts": mounts}],
            "volumes": volumes,
        }


def unexpanded(word: str) -> str:
    """A word that Kubernetes, which reads $(NAME) and $$ in commands, leaves as it is.

    Example:
      >>> unexpanded("$(HOME)")
      '$$(HOME)'
    """
    return word.replace("$", "$$")


def variables(job: Job) -> list[dict[str, Any]]:
    """The environment of a pod; TPU hosts learn about each other from the cluster."""
    plain = dict(job.environment)
    if job.accelerator == "cpu":
        plain = {"JAX_PLATFORMS": "cpu", **plain}
    listed: list[dict[str, Any]] = [
        {"name": name, "value": unexpanded(value)} for name, value in plain.items()
    ]
    if job.hosts == 1:
        return listed
    if _tpu(job.accelerator):
        return [*listed, {"name": "RECATTN_COORDINATOR", "value": "auto"}]
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    return [
        *listed,
        {
            "name": "RECATTN_COORDINATOR",
            "value": f"{job.name}-{_GROUP}-0-0.{job.name}:{_PORT}",
        },
        {"name": "RECATTN_PROCESSES", "value": str(job.hosts)},
        {"name": "RECATTN_PROCESS", "valueFrom": {"fieldRef": {"fieldPath": index}}},
    ]


def resources(job: Job) -> tuple[Mapping[str, str], Mapping[str, int]]:
    """Which nodes a pod of the job needs, and how many accelerators of one.

    Raises:
      UserError: the accelerator is unknown, or does not fit the hosts.

    Example:
      >>> resources(Job("a", ("true",), Path("runs"), "v6e-16", hosts=4))[1]
      {'google.com/tpu': 4}
    """
    if job.accelerator == "cpu":
        return {}, {}
    if slice_ := _tpu(job.accelerator):
        return _tpu_resources(job, *slice_)
    gpu = re.fullmatch(r"([a-z][a-z0-9-]*):([1-9]\d*)", job.accelerator)
    if not gpu or gpu[1] == "cpu":
        raise UserError(
            f"accelerator {job.accelerator!r}: the gke driver knows cpu, gpu:8, nvidia-l4:8 and the"
            f" TPU slices {', '.join(TPU_TYPES)}, as in v5litepod-16"
        )
    selector = {} if gpu[1] == "gpu" else {"cloud.google.com/gke-accelerator": gpu[1]}
    return selector, {"nvidia.com/gpu": int(gpu[2])}


def _tpu(accelerator: str) -> tuple[TpuType, int] | None:
    family, _, size = accelerator.rpartition("-")
    if family not in TPU_TYPES or not size.isdecimal():
        return None
    return TPU_TYPES[family], int(size)


def _tpu_resources(
    job: Job, kind: TpuType, size: int
) -> tuple[Mapping[str, str], Mapping[str, int]]:
    chips = size // kind.units
    if chips < 1 or chips & (chips - 1) or size % kind.units:
        raise UserError(f"accelerator {job.accelerator!r}: there is no slice of this size")
    if chips % job.hosts or chips // job.hosts not in (1, 4, 8):
        raise UserError(
            f"job {job.name}: {job.accelerator} has {chips} chips, 1, 4 or 8 on each host; with"
            f" --hosts={job.hosts} it does not come out even"
        )
    selector = {
        "cloud.google.com/gke-tpu-accelerator": kind.label,
        "cloud.google.com/gke-tpu-topology": topology(chips, kind.dimensions),
    }
    return selector, {"google.com/tpu": chips // job.hosts}


def topology(chips: int, dimensions: int) -> str:
    """The shape of a slice: as near to a square or a cube as powers of two come, rising.

    Args:
      chips: a power of two.
      dimensions: 2 or 3.

    Example:
      >>> topology(32, 2), topology(4, 3), topology(128, 3)
      ('4x8', '2x2x1', '4x4x8')
    """
    if dimensions == 3 and chips < 8:
        return f"{topology(chips, 2)}x1"
    power = chips.bit_length() - 1
    sides = [(power + n) // dimensions for n in range(dimensions)]
    return "x".join(str(2**side) for side in sides)
