"""The JobSet fits its schema, says what should happen, and kubectl is asked in the right order."""

import json
import re
from pathlib import Path

import pytest
import yaml

from launch.drivers.gke import Gke, resources, topology
from launch.jobs import Job, State, Status
from recattn_jax.errors import UserError
from tests.launch.drivers.jobset_schema import JOBSET

HOSTILE = ("; rm -rf /", "$(HOME)", "$$(HOME)", "'\"`", "--x", "- a: b", "\u00e4\u2028", "${A}", "")
NOT_FOUND = {"code": 1, "err": 'Error from server (NotFound): jobsets "a" not found\n'}


def job(folder, *argv, accelerator="cpu", **changes):
    return Job("a", argv or ("python", "train"), folder, accelerator, **changes)


def jobset(driver, work):
    return yaml.safe_load(driver.manifest(work))


def pod(driver, work):
    (group,) = jobset(driver, work)["spec"]["replicatedJobs"]
    return group["template"]["spec"]["template"]["spec"]


def expanded(word, environment):
    """What Kubernetes makes of a word, as its documentation has it."""

    def one(match):
        return "$" if match[0] == "$$" else environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, word)


@pytest.mark.parametrize(
    "work",
    [
        job(Path("/runs")),
        job(Path("/runs"), *HOSTILE, hosts=3, environment={"A": "$(B)"}, retries=4),
        job(Path("/runs"), accelerator="v5litepod-16", hosts=4),
        job(Path("/runs"), accelerator="nvidia-l4:2", hosts=2),
    ],
)
def test_every_manifest_fits_the_schema(work):
    jsonschema = pytest.importorskip("jsonschema")
    for driver in (Gke("image"), Gke("image", claim="claim", queue="queue")):
        jsonschema.validate(jobset(driver, work), JOBSET)
    wrong = jobset(Gke("image"), work)
    wrong["spec"]["failurePolicy"]["maxRestart"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, JOBSET)


def test_words_arrive_as_they_are():
    work = job(Path("/runs"), *HOSTILE, environment={"WORD": "$(PATH)"})
    (container,) = pod(Gke("image"), work)["containers"]
    there = {"HOME": "/root", "PATH": "/bin", "A": "B"}
    assert tuple(expanded(word, there) for word in container["command"]) == HOSTILE
    values = {one["name"]: expanded(one["value"], there) for one in container["env"]}
    assert values == {"JAX_PLATFORMS": "cpu", "WORD": "$(PATH)"}


def test_final_codes_fail_the_set_and_others_restart_it():
    spec = jobset(Gke("image"), job(Path("/runs"), retries=5))["spec"]
    assert spec["failurePolicy"] == {
        "maxRestarts": 5,
        "rules": [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
    }
    (rule,) = spec["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2, 3])


def test_hosts_find_each_other():
    (container,) = pod(Gke("image"), job(Path("/runs"), hosts=2))["containers"]
    environment = {one["name"]: one for one in container["env"]}
    assert environment["RECATTN_COORDINATOR"]["value"].startswith("a-worker-0-0.a:")
    assert environment["RECATTN_PROCESSES"]["value"] == "2"
    assert "completion-index" in str(environment["RECATTN_PROCESS"]["valueFrom"])


@pytest.mark.parametrize(
    ("accelerator", "hosts", "label", "shape", "chips"),
    [
        ("v5litepod-16", 4, "tpu-v5-lite-podslice", "4x4", 4),
        ("v5litepod-8", 1, "tpu-v5-lite-podslice", "2x4", 8),
        ("v6e-256", 64, "tpu-v6e-slice", "16x16", 4),
        ("v4-8", 1, "tpu-v4-podslice", "2x2x1", 4),
        ("v5p-256", 32, "tpu-v5p-slice", "4x4x8", 4),
    ],
)
def test_tpu_slices_find_their_nodes(accelerator, hosts, label, shape, chips):
    selector, limits = resources(job(Path("/runs"), accelerator=accelerator, hosts=hosts))
    assert selector == {
        "cloud.google.com/gke-tpu-accelerator": label,
        "cloud.google.com/gke-tpu-topology": shape,
    }
    assert limits == {"google.com/tpu": chips}


def test_a_shape_holds_all_chips():
    for dimensions in (2, 3):
        for power in range(2, 12):
            sides = [int(side) for side in topology(2**power, dimensions).split("x")]
            product = 1
            for side in sides:
                product *= side
            assert product == 2**power and len(sides) == dimensions


@pytest.mark.parametrize(
    ("accelerator", "hosts", "words"),
    [
        ("any", 1, "knows cpu, gpu:8"),
        ("gpu", 1, "knows cpu, gpu:8"),
        ("cpu:4", 1, "knows cpu, gpu:8"),
        ("v5litepod-16", 1, "has 16 chips"),
        ("v5litepod-12", 3, "no slice of this size"),
        ("v4-3", 1, "no slice of this size"),
    ],
)
def test_an_unknown_accelerator_is_refused(tmp_path, accelerator, hosts, words):
    with pytest.raises(UserError, match=words):
        Gke("image").start(job(tmp_path, accelerator=accelerator, hosts=hosts))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def kubectl(stand_ins):
    stand_ins.put("kubectl")
    return stand_ins


def verbs(stand_ins):
    return [call[1] for call in stand_ins.calls()]


def conditions(kind):
    listed = [
        {"type": "Suspended", "status": "False"},
        {"type": kind, "status": "True", "message": "said the cluster"},
    ]
    return {"out": json.dumps({"status": {"conditions": listed}})}


def test_the_plan_is_what_is_done(kubectl, tmp_path):
    work, driver = job(tmp_path), Gke("image")
    kubectl.answer({"get jobset": [NOT_FOUND]})
    write, apply = driver.plan(work)
    driver.start(work)
    assert kubectl.calls()[-1] == list(apply.argv)
    assert write.file.read_text() == write.text


def test_a_job_that_is_there_is_left_and_one_that_failed_is_made_anew(kubectl, tmp_path):
    work, driver = job(tmp_path), Gke("image")
    running = {"out": json.dumps({"status": {"replicatedJobsStatus": [{"ready": 1}]}})}
    for answer in (running, conditions("Completed")):
        kubectl.answer({"get jobset": [answer]})
        driver.start(work)
        assert verbs(kubectl) == ["get"]
    kubectl.answer({"get jobset": [conditions("Failed")]})
    driver.start(work)
    assert verbs(kubectl) == ["get", "get", "delete", "apply"]
    driver.stop(work)
    assert kubectl.calls() == [
        ["kubectl", "delete", "jobset", "a", "--ignore-not-found", "--wait=false"]
        + ["--namespace=default"]
    ]


def test_a_job_that_is_being_stopped_is_waited_for(kubectl, tmp_path):
    leaving = {"metadata": {"deletionTimestamp": "now"}, "status": {"replicatedJobsStatus": []}}
    kubectl.answer({"get jobset": [{"out": json.dumps(leaving)}] * 2})
    work, driver = job(tmp_path), Gke("image")
    assert driver.status(work) == Status(State.RUNNING, None, "it is being stopped")
    driver.start(work)
    assert verbs(kubectl) == ["get", "get", "delete", "apply"]


def test_the_cluster_says_how_a_job_stands(kubectl, tmp_path):
    work, driver = job(tmp_path), Gke("image", timeout=1)
    message = "Container main for pod default/a-worker-0-0 failed with exit code 3 matching FailJob"
    jobs = {"items": [{"status": {"conditions": [{"message": message}]}}]}
    kubectl.answer(
        {
            "get jobset": [
                NOT_FOUND,
                {"out": "{}"},
                {"out": json.dumps({"status": {"replicatedJobsStatus": [{"ready": 2}]}})},
                conditions("Completed"),
                conditions("Failed"),
                {"code": 1, "err": "Unable to connect to the server: EOF\n"},
                {"code": 1, "err": "exec: executable gke-gcloud-auth-plugin not found\n"},
                {"sleep": 1000},
            ],
            "get jobs ": [{"out": json.dumps(jobs)}],
        }
    )
    assert driver.status(work) == Status(State.UNKNOWN)
    assert driver.status(work) == Status(State.WAITING)
    assert driver.status(work) == Status(State.RUNNING)
    assert driver.status(work) == Status(State.DONE, 0)
    assert driver.status(work) == Status(State.FAILED, 3, "said the cluster")
    away = "Unable to connect to the server: EOF"
    assert driver.status(work) == Status(State.WAITING, None, away)
    assert driver.status(work).state is State.WAITING
    assert "did not answer within 1 s" in driver.status(work).reason


def test_a_refusal_is_one_line(kubectl, tmp_path):
    kubectl.answer(
        {"get jobset": [NOT_FOUND], "apply": [{"code": 1, "err": "a\n\nerror: forbidden\n"}]}
    )
    with pytest.raises(UserError, match=r"^kubectl apply .*: error: forbidden$"):
        Gke("image").start(job(tmp_path))


def test_the_toolkit_is_told_the_same():
    words = Gke("image").gcluster(job(Path("/runs"), "a b", "$c", environment={"D": "e f"}))
    assert "--command='a b' '$c'" in words and "--env=D=e f" in words
    assert "--restart-on-exit-codes=42" in words
    with pytest.raises(UserError, match="at most 28"):
        Gke("image").gcluster(Job("a" * 29, ("b",), Path("/runs"), "cpu"))
