"""The manifests for Kubernetes: against its schemas, and what they promise beyond them."""

import copy
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rerank_batch.config import load_config
from tests.infra.commands import parse
from tests.infra.manifests import DAY, INFRA, check, documents, night

FOLDER = INFRA / "kubernetes"
KUSTOMIZATION = documents(FOLDER / "kustomization.yaml")[0]
RESOURCES = [each for name in KUSTOMIZATION["resources"] for each in documents(FOLDER / name)]
CONFIG_MAP = KUSTOMIZATION["configMapGenerator"][0]


def named(kind: str, name: str) -> Any:
    return next(r for r in RESOURCES if (r["kind"], r["metadata"]["name"]) == (kind, name))


def pods() -> dict[str, Any]:
    """Every pod template there is: of the cron jobs, and of the night."""
    found = {
        r["metadata"]["name"]: r["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for r in RESOURCES
        if r["kind"] == "CronJob"
    }
    spec = night()["spec"]
    cluster = spec["rayClusterSpec"]
    found["submitter"] = spec["submitterPodTemplate"]["spec"]
    found["head"] = cluster["headGroupSpec"]["template"]["spec"]
    found |= {g["groupName"]: g["template"]["spec"] for g in cluster["workerGroupSpecs"]}
    return found


@pytest.mark.parametrize(
    "manifest", [*RESOURCES, night()], ids=lambda m: f"{m['kind']}-{m['metadata']['name']}"
)
def test_every_manifest_fits_its_schema(manifest: Any) -> None:
    check(manifest)
    if manifest["kind"] != "Namespace":
        assert manifest["metadata"]["namespace"] == KUSTOMIZATION["namespace"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.backofLimit", 3),
        ("spec.backoffLimit", "three"),
        ("spec.rayClusterSpec.headGroupSpec.replicas", 2),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplicas", None),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.resource", {}),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.tolerations", {"key": "spot"}),
    ],
)
def test_the_schema_of_the_night_sees_what_is_wrong(path: str, value: Any) -> None:
    """Else a test against it would say nothing: KubeRay publishes no JSON schema, so it is ours."""
    broken = copy.deepcopy(night())
    *parents, leaf = path.split(".")
    place = broken
    for part in parents:
        place = place[int(part) if part.isdigit() else part]
    place[leaf] = value
    with pytest.raises(jsonschema.ValidationError):
        check(broken)


def test_the_kustomization_names_every_file_and_nothing_that_is_not_there() -> None:
    named = {*KUSTOMIZATION["resources"], *CONFIG_MAP["files"], "kustomization.yaml"}
    assert named == {file.name for file in FOLDER.iterdir()}


def test_every_try_of_a_night_is_the_same_command_and_goes_on_with_the_same_run() -> None:
    """KubeRay repeats the entry point on a new cluster: nothing in it may depend on the clock."""
    assert night()["spec"]["backoffLimit"] >= 1
    entrypoint = night()["spec"]["entrypoint"]
    assert f"--run-id nightly-{DAY} --or-resume" in entrypoint
    # It passes through the submitter's shell and the one on the head, which quote differently.
    assert not set(entrypoint) & set("\"'$`\\;&|<>(){}[]*?!#~\n")
    assert night("2026-01-03")["spec"]["entrypoint"] != entrypoint


def test_the_commands_of_the_pods_are_commands_of_ours() -> None:
    parse(night()["spec"]["entrypoint"].split())
    parse(pods()["gc"]["containers"][0]["command"] + pods()["gc"]["containers"][0]["args"])
    script = pods()["morning-check"]["containers"][0]["args"][0].splitlines()
    parse(shlex.split(script[-1]))


def test_the_configuration_of_the_night_is_valid_and_lies_where_the_pods_look() -> None:
    config = load_config(FOLDER / "nightly.yaml", [night()["spec"]["entrypoint"].split()[-1]])
    assert config.queries is not None
    assert config.queries.path == f"s3://example-rerank/queries/date={DAY}"
    for pod in ("head", "gpu-spot"):
        mounts = {m["name"]: m["mountPath"] for m in pods()[pod]["containers"][0]["volumeMounts"]}
        assert mounts["config"] == "/etc/rerank-batch"
        assert config.storage.cache.startswith(mounts["cache"])
        volumes = {v["name"]: v for v in pods()[pod]["volumes"]}
        assert volumes["config"]["configMap"]["name"] == CONFIG_MAP["name"]
        room = volumes["cache"]["emptyDir"]["sizeLimit"]
        if pod == "gpu-spot":
            assert float(room.removesuffix("Gi")) > config.storage.cache_gb


def test_the_cron_job_fills_the_day_in_and_applies_the_result(tmp_path: Path) -> None:
    """Its script is run here, with the paths of this machine."""
    pod = pods()["nightly"]
    script = pod["initContainers"][0]["args"][0]
    for there, here in (("/etc/rerank-batch", FOLDER), ("/night", tmp_path)):
        script = script.replace(there, str(here))
    subprocess.run([*pod["initContainers"][0]["command"], script], check=True)
    made = yaml.safe_load((tmp_path / "rayjob.yaml").read_text("utf-8"))
    day = made["metadata"]["name"].removeprefix("nightly-")
    assert made == night(day)
    check(made)
    assert pod["containers"][0]["args"] == ["apply", "--filename=/night/rayjob.yaml"]


def test_the_head_is_on_demand_and_the_workers_are_spot_within_bounds() -> None:
    def capacity(pod: str) -> set[str]:
        rule = pods()[pod]["affinity"]["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        terms = [each for term in rule["nodeSelectorTerms"] for each in term["matchExpressions"]]
        return {value.lower().replace("_", "-") for t in terms for value in t["values"]}

    assert capacity("head") == {"on-demand"}
    assert capacity("gpu-spot") == {"spot"}
    cluster = night()["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"]
    for group in cluster["workerGroupSpecs"]:
        assert 0 < group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        quota = named("ResourceQuota", "gpus")["spec"]["hard"]["requests.nvidia.com/gpu"]
        gpus = group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
        assert group["maxReplicas"] * int(gpus) <= int(quota)


@pytest.mark.parametrize("name", sorted(pods()))
def test_no_pod_is_root_or_holds_a_key(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"]
    accounts = {r["metadata"]["name"] for r in RESOURCES if r["kind"] == "ServiceAccount"}
    assert pod["serviceAccountName"] in accounts
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert not container["image"].endswith(":latest")
        secret = [e for e in container.get("env", []) if e["name"].endswith(("KEY", "TOKEN"))]
        assert all("value" not in e and "secretKeyRef" in e["valueFrom"] for e in secret)


def test_the_version_of_ray_is_that_of_the_constraints() -> None:
    pins = (INFRA / "constraints.txt").read_text("utf-8").splitlines()
    assert f"ray=={night()['spec']['rayClusterSpec']['rayVersion']}" in pins
