"""Ray's cluster launcher, Airflow and Argo: each file against what its reader takes."""

import ast
import copy
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import botocore.session
import botocore.validate
import jsonschema
import pytest
from hera.workflows.models import CronWorkflow
from ray.autoscaler._private.util import prepare_config, validate_config

from rerank_batch.config import load_config
from tests.infra.commands import parse
from tests.infra.manifests import INFRA, documents, night

(CLUSTER,) = documents(INFRA / "ray-cluster-aws.yaml")
(ARGO,) = documents(INFRA / "argo/nightly.yaml")
DAG = INFRA / "airflow/rerank_nightly.py"


def test_the_cluster_file_fits_ray_s_own_schema() -> None:
    validate_config(prepare_config(copy.deepcopy(CLUSTER)))
    for broken in ({**CLUSTER, "max_worker": 8}, {**CLUSTER, "head_node_type": "haed"}):
        with pytest.raises((jsonschema.ValidationError, ValueError)):
            validate_config(prepare_config(copy.deepcopy(broken)))


@pytest.mark.parametrize("name", CLUSTER["available_node_types"])
def test_the_nodes_are_what_ec2_can_start(name: str) -> None:
    """Ray hands ``node_config`` to RunInstances, with the tags and numbers it adds itself."""
    node = CLUSTER["available_node_types"][name]["node_config"]
    shape = (
        botocore.session.get_session()
        .get_service_model("ec2")
        .operation_model("RunInstances")
        .input_shape
    )
    asked = {**node, "MinCount": 1, "MaxCount": 1}
    assert botocore.validate.ParamValidator().validate(asked, shape).generate_report() == ""
    assert ("InstanceMarketOptions" in node) == (name != CLUSTER["head_node_type"])
    assert node["MetadataOptions"]["HttpTokens"] == "required"


def test_the_cluster_mounts_the_configuration_of_the_night() -> None:
    (here,) = CLUSTER["file_mounts"].values()
    assert load_config(INFRA.parent / here).job == "nightly"
    assert "--dashboard-host=127.0.0.1" in CLUSTER["head_start_ray_commands"][-1]


def without(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: without(each, name) for key, each in value.items() if key != name}
    return [without(each, name) for each in value] if isinstance(value, list) else value


def test_the_workflow_fits_argo_s_schema() -> None:
    """Argo's models pass unknown fields over: what they know is all there has to be."""
    known = CronWorkflow.model_validate(ARGO).model_dump(by_alias=True, exclude_unset=True)
    assert known == ARGO
    misspelt = copy.deepcopy(ARGO)
    misspelt["spec"]["workflowSpec"]["templates"][1]["retryStategy"] = {"limit": 3}
    known = CronWorkflow.model_validate(misspelt).model_dump(by_alias=True, exclude_unset=True)
    assert known != misspelt


def test_the_workflow_creates_and_waits_for_the_night_s_ray_job() -> None:
    spec = ARGO["spec"]["workflowSpec"]
    templates = {each["name"]: each for each in spec["templates"]}
    steps = [step["template"] for group in templates["night"]["steps"] for step in group]
    assert steps == ["start", "finish"]
    waited_for = templates["finish"]["container"]["args"][-1]
    name = waited_for.replace("{{workflow.parameters.day}}", "2026-01-02")
    assert name == f"rayjob/{night('2026-01-02')['metadata']['name']}"
    assert "workflow.scheduledTime" in spec["arguments"]["parameters"][0]["value"]


class Missing(Exception):
    """The API server's answer where an object is not there."""

    status = 404


class Server:
    """The RayJobs of a cluster, as the kubernetes client shows them."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}

    def get_namespaced_custom_object(self, name: str, **_: str) -> Any:
        if name not in self.jobs:
            raise Missing
        return self.jobs[name]

    def create_namespaced_custom_object(self, body: Any, **_: str) -> None:
        assert body["metadata"]["name"] not in self.jobs
        self.jobs[body["metadata"]["name"]] = body

    def delete_namespaced_custom_object(self, name: str, **_: str) -> None:
        del self.jobs[name]


def test_the_dag_creates_the_night_once_and_tells_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Run with the least of Airflow that it names: its decorators give the functions back."""
    from datetime import UTC, datetime

    tree = ast.parse(DAG.read_text("utf-8"))
    imported = {
        (each.module, name.name)
        for each in ast.walk(tree)
        if isinstance(each, ast.ImportFrom) and each.module
        for name in each.names
    }
    tasks: dict[str, Any] = {}
    server = Server()

    def task(function: Any) -> Any:
        tasks[function.__name__] = function
        return lambda *_: None

    task.sensor = lambda **_: task  # type: ignore[attr-defined]
    stand_ins = {
        "dag": lambda **_: lambda function: function,
        "task": task,
        "AirflowException": RuntimeError,
        "ApiException": Missing,
        "KubernetesHook": lambda **_: type("Hook", (), {"get_conn": lambda self: None})(),
        "CustomObjectsApi": lambda _: server,
    }
    for module, name in imported:
        if name in stand_ins:
            made = sys.modules.get(module, ModuleType(module))
            monkeypatch.setitem(sys.modules, module, made)
            setattr(made, name, stand_ins[name])
    copied = tmp_path / DAG.name
    copied.write_text(DAG.read_text("utf-8"), "utf-8")
    template = (INFRA / "kubernetes/rayjob.yaml").read_text("utf-8")
    (tmp_path / "rayjob.yaml").write_text(template, "utf-8")
    runpy.run_path(str(copied))

    when = datetime(2026, 1, 3, 1, 30, tzinfo=UTC)
    name = tasks["start"](data_interval_end=when)
    assert server.jobs == {name: night("2026-01-02")}
    parse(server.jobs[name]["spec"]["entrypoint"].split())
    assert tasks["start"](data_interval_end=when) == name, "a retry finds what is there"
    assert tasks["finished"](name) is False
    server.jobs[name]["status"] = {"jobDeploymentStatus": "Complete"}
    assert tasks["finished"](name) is True
    server.jobs[name]["status"] = {"jobDeploymentStatus": "Failed", "message": "exit code 11"}
    with pytest.raises(RuntimeError, match="exit code 11"):
        tasks["finished"](name)
    with pytest.raises(RuntimeError, match="the next try creates it"):
        tasks["start"](data_interval_end=when)
    assert tasks["start"](data_interval_end=when) == name
