"""The night as an Airflow DAG, in place of the CronJob: create the RayJob and wait for its end.

For Airflow 3 with apache-airflow-providers-cncf-kubernetes; put rayjob.yaml of infra/kubernetes
beside this file. Every try of a task has the same day, so a retry finds the RayJob that is there,
and clearing the DAG run after a failure goes on with the same run of ours.
"""

from datetime import datetime, timedelta
from pathlib import Path

import yaml
from airflow.exceptions import AirflowException
from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.sdk import dag, task
from kubernetes.client import ApiException, CustomObjectsApi

TEMPLATE = Path(__file__).with_name("rayjob.yaml")
RAY_JOBS = {"group": "ray.io", "version": "v1", "namespace": "rerank", "plural": "rayjobs"}


def ray_jobs() -> CustomObjectsApi:
    """The API server, by the connection that Airflow knows."""
    return CustomObjectsApi(KubernetesHook(conn_id="kubernetes_default").get_conn())


@dag(
    schedule="30 1 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["rerank-batch"],
)
def rerank_nightly():
    """One run for each day of the query log."""

    @task
    def start(data_interval_end=None) -> str:
        """Create the night's RayJob, unless it is there; a failed one is replaced."""
        day = (data_interval_end - timedelta(days=1)).strftime("%Y-%m-%d")
        night = yaml.safe_load(TEMPLATE.read_text("utf-8").replace("YYYY-MM-DD", day))
        name = night["metadata"]["name"]
        try:
            there = ray_jobs().get_namespaced_custom_object(**RAY_JOBS, name=name)
        except ApiException as error:
            if error.status != 404:
                raise
            ray_jobs().create_namespaced_custom_object(**RAY_JOBS, body=night)
            return name
        if there.get("status", {}).get("jobDeploymentStatus") == "Failed":
            ray_jobs().delete_namespaced_custom_object(**RAY_JOBS, name=name)
            raise AirflowException(f"{name} had failed and is deleted: the next try creates it")
        return name

    @task.sensor(poke_interval=60, timeout=9 * 3600, mode="reschedule")
    def finished(name: str) -> bool:
        """Whether it succeeded; fails with its message where it did not."""
        status = ray_jobs().get_namespaced_custom_object(**RAY_JOBS, name=name).get("status", {})
        if status.get("jobDeploymentStatus") == "Failed":
            raise AirflowException(f"{name}: {status.get('message', 'no message')}")
        return status.get("jobDeploymentStatus") == "Complete"

    finished(start())


rerank_nightly()
