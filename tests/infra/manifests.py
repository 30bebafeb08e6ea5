"""The files in infra/ as the tests read them."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from referencing import Registry, Resource

HERE = Path(__file__).parent
INFRA = HERE.parents[1] / "infra"
KUBERNETES = "1.35"
DAY = "2026-01-02"


def documents(file: Path) -> list[Any]:
    """The documents of a YAML file; `SafeLoader`, so nothing in it is run."""
    return [each for each in yaml.safe_load_all(file.read_text("utf-8")) if each is not None]


def night(day: str = DAY) -> Any:
    """The RayJob of a night, as the CronJob fills it in."""
    text = (INFRA / "kubernetes/rayjob.yaml").read_text("utf-8")
    return yaml.safe_load(text.replace("YYYY-MM-DD", day))


def check(manifest: Any) -> None:
    """Refuse what the API server would, unknown fields included."""
    if manifest["apiVersion"].startswith("ray.io/"):
        _ray_job().validate(manifest)
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@cache
def _ray_job() -> Any:
    folder = files("kubernetes_validate") / f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text("utf-8"))
    registry: Registry[Any] = Resource.from_contents(definitions) @ Registry()
    schema = yaml.safe_load((HERE / "rayjob.schema.yaml").read_text("utf-8"))
    schema["$id"] = definitions["$id"].replace("_definitions", "rayjob")
    return jsonschema.Draft202012Validator(schema, registry=registry)
