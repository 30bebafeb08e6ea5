"""The policies of job, gc and reader: their grammar, and that they allow what is done and no more.

Each role is played against a real S3 server; what the SDK is asked for is written down and held
against the role's policy.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import botocore.session
import botocore.validate
import parliament
import pytest
import yaml

from jobs.console import Console
from rerank_batch.runs import Run, publish_run
from rerank_batch.runs.decisions import keep_decision
from rerank_batch.score_cache import ScoreCache
from rerank_batch.storage import Root, open_root, s3
from rerank_batch.workflows.open_results import open_results
from rerank_batch.workflows.runs import collect_garbage, list_runs, verify_run
from tests.chaos import fault_proxy
from tests.chaos.arena import write_base
from tests.chaos.project import Project, clean_environment, write_project
from tests.chaos.s3_server import S3Server
from tests.conftest import BUCKET
from tests.infra.iam import allowed, listed
from tests.infra.manifests import INFRA, documents
from tests.support.helpers import complete_run, plan_table, reject_table, spec, write_all

IAM = INFRA / "iam"
ROLES = ("job", "gc", "reader")
THEIRS = "arn:aws:s3:::example-rerank"

CALLS = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "CompleteMultipartUpload": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "UploadPart": "s3:PutObject",
}
"""Which permission S3 asks for; a call that is not here is new and has to be thought about."""


def policy(name: str) -> Any:
    return json.loads((IAM / f"{name}.json").read_text("utf-8"))


@dataclass(frozen=True)
class Call:
    """A call as IAM sees it."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = ()


class Calls(set[Call]):
    """Every call of the SDK, as if the test's bucket and prefix were those of the example."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix.removeprefix(f"s3://{BUCKET}/") + "/"

    def note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        action = CALLS[model.name]
        headers = {"IfNoneMatch": "s3:if-none-match", "IfMatch": "s3:if-match"}
        context = tuple((key, params[name]) for name, key in headers.items() if name in params)
        keys = [each["Key"] for each in params.get("Delete", {}).get("Objects", [])]
        for key in keys or [params.get("Key")]:
            assert key is None or key.startswith(self._prefix), key
            path = "" if key is None else "/" + key.removeprefix(self._prefix)
            self.add(Call(action, THEIRS + path, context))


@contextmanager
def noted(prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """Write down what is asked of S3 while the block runs."""
    calls = Calls(prefix)
    client = s3.client

    def watched(tries: int = s3.TRIES) -> Any:
        made = client(tries)
        made.meta.events.register("provide-client-params.s3", calls.note, unique_id="noted")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(s3, "client", watched)
        yield calls
    s3._client.cache_clear()


def play_job(prefix: str, tmp_path: Path) -> None:
    """A night and what belongs to it, uploads in parts included."""
    root = open_root(f"{prefix}/rerank")
    root.check_writes()
    run = Run.create(root, "nightly-2", spec(planned=4))
    run.write_plan(plan_table(run.spec.planned), reject_table())
    keep_decision(run, "mode", 1, {"mode": "fp32"})
    keep_decision(run, "cache", 1, {"segments": []})
    run.claim()
    with run.lease(20):
        write_all(run, rejected=[3])
        run.finish({"queries": 3, "rejects": {"bad_score": 1}})
    publish_run(run)
    large = tmp_path / "large"
    large.write_bytes(b"x" * (6 << 20))
    root.publish("scores/scope/segments/1-nightly-1-old.arrow", large)
    cache = ScoreCache(root, "scope")
    cache.snapshot()
    cache.sweep(0)
    root.create_once("modes/model.json", b"{}")
    index = open_root(f"{prefix}/index/nightly")
    index.swap("manifest.json", b"{}", expected=None)
    index.publish("build/shards/0.faiss", large)
    index.delete(["build/shards/0.faiss"])
    for upload in index.stale_uploads("", -60):
        index.drop_upload(upload)


def play_gc(prefix: str, tmp_path: Path) -> None:
    collect_garbage(f"{prefix}/rerank", None, 1, delete=True)


def play_reader(prefix: str, tmp_path: Path) -> None:
    uri, console = f"{prefix}/rerank", Console()
    results = open_results(uri, "nightly")
    assert results.arrow().count_rows() == 4
    results.rejects()
    list_runs(uri)
    results.run.last_owner()
    verify_run(uri, results.run_id, console).raise_if_damaged()


@pytest.mark.parametrize(
    ("role", "play", "nights", "least"),
    [
        ("job", play_job, 0, {"PutObject", "GetObject", "ListBucket", "DeleteObject"}),
        (
            "gc",
            play_gc,
            2,
            {"GetObject", "ListBucket", "DeleteObject", "ListBucketMultipartUploads"},
        ),
        ("reader", play_reader, 1, {"GetObject", "ListBucket"}),
    ],
)
def test_a_role_may_do_all_that_it_does(
    role: str,
    play: Callable[[str, Path], None],
    nights: int,
    least: set[str],
    prefix: str,
    bucket: Root,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(s3, "_ONE_PUT", 5 << 20)
    root = open_root(f"{prefix}/rerank")
    for number in range(nights):
        day = f"2026-01-0{number + 1}T03:00:00"
        complete_run(root, f"nightly-{number}", created=day, planned=4, publish=True)
    with noted(prefix, monkeypatch) as calls:
        play(prefix, tmp_path)
    done = {call.action.removeprefix("s3:") for call in calls}
    assert least <= done
    refused = [c for c in calls if not allowed(policy(role), c.action, c.resource, dict(c.context))]
    assert refused == []
    others = {action.removeprefix("s3:") for action in granted(policy(role))} - done
    assert others <= {"AbortMultipartUpload"}, "what is never done need not be allowed"


@pytest.mark.slow
def test_a_whole_night_stays_within_the_policy_of_the_job(
    prefix: str, store: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every request of driver and workers, whoever makes it: the SDK, or Arrow's own client."""
    folder = prefix.removeprefix(f"s3://{BUCKET}/")
    corpus, queries = f"{prefix}/corpus", f"{prefix}/queries"
    config = write_project(tmp_path / "project", write_base(tmp_path / "base"), "-", "-", 20)
    settings = yaml.safe_load(config.read_text("utf-8"))
    settings["root"], settings["index"]["path"] = f"{prefix}/rerank", f"{prefix}/index/nightly"
    settings["cache"] = {"enabled": True}
    for section, name, place in (
        ("corpus", "corpus", corpus),
        ("queries", "log", queries),
        ("qrels", "qrels", f"{prefix}/qrels"),
    ):
        settings[section]["path"] = f"{place}/{name}.parquet"
        key = f"{place.removeprefix(f's3://{BUCKET}/')}/{name}.parquet"
        store.client().upload_file(str(config.with_name(f"{name}.parquet")), BUCKET, key)
    config.write_text(yaml.safe_dump(settings), "utf-8")

    seen: list[fault_proxy.Head] = []
    read_head = fault_proxy.read_head

    async def note(reader: Any) -> fault_proxy.Head:
        head = await read_head(reader)
        if not head.first[0].startswith("HTTP"):
            seen.append(head)
        return head

    monkeypatch.setattr(fault_proxy, "read_head", note)
    with fault_proxy.FaultProxy(store.port, seed=0, rates={}) as proxy:
        there = {**store.environment(), "AWS_ENDPOINT_URL_S3": proxy.endpoint}
        project = Project(config, f"{prefix}/rerank", clean_environment(**there))
        for command in (["build-index", config, "--force"], ["rerank", config]) * 2:
            done = project.run(*command)
            assert done.returncode == 0, done.stderr
    calls = {call for head in seen if (call := of_request(head, folder))}
    assert {call.action for call in calls} >= {"s3:PutObject", "s3:GetObject", "s3:ListBucket"}
    job = policy("job")
    assert [c for c in calls if not allowed(job, c.action, c.resource, dict(c.context))] == []


def of_request(head: fault_proxy.Head, folder: str) -> Call | None:
    """A request as IAM sees it; the keys of a bulk deletion are in its body, and not told here."""
    method, target, _ = head.first
    path, _, query = target.partition("?")
    asked = set(parse_qs(query, keep_blank_values=True))
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    assert bucket == BUCKET, target
    if not key:
        if method == "POST" and "delete" in asked:
            return None
        assert method in ("GET", "HEAD"), target
        what = "ListBucketMultipartUploads" if "uploads" in asked else "ListBucket"
        return Call(f"s3:{what}", THEIRS)
    action = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject"}.get(method)
    if action is None:
        action = "s3:AbortMultipartUpload" if "uploadId" in asked else "s3:DeleteObject"
        action = "s3:PutObject" if method == "POST" else action
    context = {"s3:if-none-match": "if-none-match", "s3:if-match": "if-match"}
    given = tuple(
        (key, head.headers[name]) for key, name in context.items() if name in head.headers
    )
    return Call(action, f"{THEIRS}/{key.removeprefix(f'{folder}/')}", given)


def granted(policy: Any) -> set[str]:
    allowing = [each for each in policy["Statement"] if each["Effect"] == "Allow"]
    return {action for statement in allowing for action in listed(statement["Action"])}


RUN = f"{THEIRS}/rerank/runs/nightly-1"


@pytest.mark.parametrize(
    ("role", "action", "resource"),
    [
        ("job", "s3:DeleteObject", f"{RUN}/final.json"),
        ("job", "s3:DeleteObject", f"{RUN}/data/1.parquet"),
        ("job", "s3:DeleteObject", f"{THEIRS}/rerank/jobs/nightly/latest.json"),
        ("job", "s3:DeleteObject", f"{THEIRS}/queries/date=2026-01-01/part.parquet"),
        ("job", "s3:PutObject", f"{THEIRS}/queries/date=2026-01-01/part.parquet"),
        ("job", "s3:PutObject", f"{THEIRS}/corpus/part.parquet"),
        ("job", "s3:PutObject", f"{RUN}/final.json"),
        ("job", "s3:PutObject", f"{RUN}/commits/000001-000000000000-000000000002.json"),
        ("job", "s3:GetObject", "arn:aws:s3:::another/rerank/runs/x/spec.json"),
        ("job", "s3:DeleteBucket", THEIRS),
        ("gc", "s3:DeleteObject", f"{THEIRS}/rerank/jobs/nightly/latest.json"),
        ("gc", "s3:DeleteObject", f"{THEIRS}/rerank/scores/scope/manifest.json"),
        ("gc", "s3:DeleteObject", f"{THEIRS}/index/nightly/manifest.json"),
        ("gc", "s3:GetObject", f"{RUN}/data/1.parquet"),
        ("gc", "s3:PutObject", f"{RUN}/final.json"),
        ("reader", "s3:GetObject", f"{THEIRS}/queries/date=2026-01-01/part.parquet"),
        ("reader", "s3:DeleteObject", f"{RUN}/data/1.parquet"),
        ("reader", "s3:PutObject", f"{THEIRS}/rerank/jobs/nightly/latest.json"),
    ],
)
def test_a_role_may_do_nothing_else(role: str, action: str, resource: str) -> None:
    assert not allowed(policy(role), action, resource)


def test_what_is_written_once_cannot_be_written_over_even_by_a_mistake() -> None:
    """IAM itself asks for the conditional header that the protocol rests on."""
    key = f"{RUN}/final.json"
    assert allowed(policy("job"), "s3:PutObject", key, {"s3:if-none-match": "*"})
    assert not allowed(policy("job"), "s3:PutObject", key, {"s3:if-match": '"etag"'})
    assert allowed(policy("job"), "s3:PutObject", f"{RUN}/data/1.parquet")


@pytest.mark.parametrize("name", [*ROLES, "cluster-head"])
def test_the_policy_is_one_of_iam(name: str) -> None:
    """Every action exists, takes the resources it is given and knows the condition's keys."""
    text = (IAM / f"{name}.json").read_text("utf-8")
    assert _findings(text) == set()
    assert "MALFORMED" in _findings(text.replace('"Effect"', '"Efect"', 1))
    wrong = text.replace("s3:GetObject", "s3:GetObjekt").replace("ec2:RunInst", "ec2:RunsInst")
    assert "UNKNOWN_ACTION" in _findings(wrong)
    assert all("*" not in action for action in granted(json.loads(text)))


def _findings(text: str) -> set[str]:
    found = parliament.analyze_policy_string(text).findings
    # Every action of ours on objects that a star ends is meant; ec2:Describe* take no resource.
    return {finding.issue for finding in found} - {"RESOURCE_STAR"}


def test_a_role_is_for_one_service_account_of_one_cluster() -> None:
    (statement,) = policy("trust")["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    provider = statement["Principal"]["Federated"].partition(":oidc-provider/")[2]
    wanted = statement["Condition"]["StringEquals"]
    assert wanted[f"{provider}:aud"] == "sts.amazonaws.com"
    accounts = {
        f"system:serviceaccount:{each['metadata']['namespace']}:{each['metadata']['name']}"
        for each in documents(INFRA / "kubernetes/access.yaml")
        if each["kind"] == "ServiceAccount"
    }
    assert wanted[f"{provider}:sub"] in accounts
    assert "*" not in json.dumps(statement)


def test_the_lifecycle_is_one_that_s3_takes_and_never_removes_a_run() -> None:
    """What of a run is garbage only `runs gc` can tell, because it knows latest.json."""
    rules = json.loads((INFRA / "s3-lifecycle.json").read_text("utf-8"))
    operation = botocore.session.get_session().get_service_model("s3")
    shape = operation.operation_model("PutBucketLifecycleConfiguration").input_shape

    def report(configuration: Any) -> str:
        asked = {"Bucket": "example-rerank", "LifecycleConfiguration": configuration}
        return str(botocore.validate.ParamValidator().validate(asked, shape).generate_report())

    assert report(rules) == ""
    assert "Unknown parameter" in report({"Rules": [{**rules["Rules"][0], "Statu": "Enabled"}]})
    for rule in rules["Rules"]:
        removes = rule.get("Expiration", {}).get("Days")
        assert removes is None or rule["Filter"]["Prefix"] == "queries/", rule["ID"]
        assert rule["Status"] == "Enabled"
