"""The command lines that are recorded, in the order in which they run.

`WORK` writes and builds on itself. `READS` leaves what others read as it is, so two of them can run
at a time. `END` gives up and cleans up.
"""

import shlex
from dataclasses import dataclass

from tests.integration.recorded.project import HYBRID


@dataclass(frozen=True)
class Step:
    """A command line under the name of its recording.

    A ``timed`` one prints figures of this machine alone in its tables: of them the words are kept.
    ``hides`` are keys of its summary whose values differ each time.
    """

    name: str
    line: str
    timed: bool = False
    hides: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line)


_SERVICE = (
    "--set \"reranker={model: 'cohere:any', top_k: 5, service: {concurrency: 1}}\" "
    "--set queries.head.max_queries=12 "
    "--set compute.block_rows=4 --set 'cost.prices={cohere: {search_unit: 0.01}}' "
)
_REFUSED = _SERVICE.replace("cohere:any", "tei:any")
_LLM = "--set \"labels.judge={model: 'llm:any', depth: 4, double: 0.25}\" --set labels.source=llm "
_ANSWERS = "--set \"answer_check={model: 'llm:any', reference: data/answers.parquet, top: 3}\" "
_PRICES = "--set 'cost.prices={llm: {million_tokens: 1.0}}' "
_CASCADE = (
    '--set "reranker={top_k: 4, stages: ['
    "{model: 'late-interaction:models/encoder', runtime: torch, depth: 12}, "
    "{model: 'cross-encoder:models/cross', runtime: torch, depth: 5}]}\" "
)
_SPLIT = "--set 'labels.split={dev: 0.2, test: 0.2}' "

WORK = [
    Step("build-index/dry-run-of-none", "build-index config.yaml --dry-run"),
    Step("build-index/full", "build-index config.yaml"),
    Step("build-index/up-to-date", "build-index config.yaml"),
    Step("build-index/up-to-date-json", "build-index config.yaml --json"),
    Step(
        "build-index/with-bm25-json",
        "build-index config.yaml --set index.path=index-2 --set index.bm25={} --json",
    ),
    Step("build-index/update-dry-run", f"build-index config.yaml {HYBRID} --dry-run"),
    Step("build-index/update-dry-run-json", f"build-index config.yaml {HYBRID} --dry-run --json"),
    Step("build-index/update-json", f"build-index config.yaml {HYBRID} --json"),
    Step("build-index/updated-already", f"build-index config.yaml {HYBRID}"),
    Step("rerank/first", "rerank config.yaml --run-id first"),
    Step(
        "rerank/second-json",
        "rerank config.yaml --run-id second --json --log-format json "
        "--set 'notify.command=[tee, notified.json]'",
    ),
    Step(
        "rerank/held-back-json",
        "rerank config.yaml --run-id held --json --set guards.min_queries=1000 "
        "--set 'guards.measure={nDCG@10: 0.99}'",
    ),
    Step(
        "rerank/hybrid-cascade-json",
        f"rerank config.yaml --run-id hybrid --json --set job=hybrid {HYBRID} {_CASCADE} "
        "--set retrieval.exclude.path=data/excluded.txt --set queries.head.max_queries=15",
    ),
    Step(
        "rerank/service-refuses",
        f"rerank config.yaml --run-id refused --set job=s {_REFUSED}",
    ),
    Step(
        "rerank/service-capped",
        f"rerank config.yaml --run-id capped --set job=s {_SERVICE} --set cost.cap=0.05",
    ),
    Step("runs/list-unfinished", "runs list store"),
    Step("runs/list-unfinished-json", "runs list store --json"),
    Step("runs/show-unfinished", "runs show store capped"),
    Step("runs/show-unfinished-json", "runs show store capped --json"),
    Step("runs/verify-unfinished", "runs verify store capped"),
    Step("rerank/service-resumed", f"rerank config.yaml --resume capped --set job=s {_SERVICE}"),
    Step("evaluate/systems-json", "evaluate compare.yaml --run-id systems --json"),
    Step("evaluate/systems-of-a-run", "evaluate compare.yaml --run systems"),
    Step(
        "evaluate/new-run",
        "evaluate config.yaml --run-id judged --set reranker.gate=null",
    ),
    Step(
        "make-labels/qrels",
        "make-labels config.yaml --run first --run-id labels-1 --out labels-1 "
        f"{_SPLIT} --set 'labels.formats=[pairs, scores, triplets, n-tuples, listwise, "
        "listwise-scores, margin-mse, kl, flagembedding, flagembedding-scores, tevatron]'",
    ),
    Step(
        "make-labels/qrels-again",
        f"make-labels config.yaml --run first --resume labels-1 --out labels-1b {_SPLIT} --json",
    ),
    Step(
        "make-labels/llm-json",
        f"make-labels config.yaml --run second --run-id labels-2 --out labels-2 {_SPLIT} {_LLM} "
        f"{_PRICES} --set labels.positives.grade=2 --json",
    ),
    Step("finetune/dry-run", "finetune finetune.yaml --labels labels-1 --out tuned --dry-run"),
    Step(
        "finetune/dry-run-json",
        "finetune finetune.yaml --labels labels-1 --out tuned --dry-run --json",
    ),
    Step("finetune/table", "finetune finetune.yaml --labels labels-1 --out tuned"),
    Step(
        "finetune/json",
        "finetune finetune.yaml --labels labels-1 --out tuned-2 --set loss=bce --set steps=2 "
        "--json",
    ),
    Step(
        "export-delta/table",
        "export-delta tuned delta-1 --base models/cross --bits 8 --labels labels-1",
    ),
    Step("export-delta/json", "export-delta tuned delta-2 --base models/cross --json"),
    Step(
        "benchmark/estimate-json",
        "benchmark estimate config.yaml --queries 8 --set cost.per_hour=3.6 --json",
    ),
    Step(
        "benchmark/protocol-json",
        "benchmark protocol bench --rows 200 --block-rows 50 --candidates 4 --rounds 1 --json",
    ),
    *(
        Step(
            f"runs/export-{form}", f"runs export store first --format {form} --out exported.{form}"
        )
        for form in ("trec", "jsonl", "pairs", "serving", "dynamodb", "redis")
    ),
    Step(
        "runs/export-json",
        "runs export store first --format trec --system retrieval --out other.trec --json",
    ),
    Step(
        "runs/export-of-systems",
        "runs export store systems --format trec --system cascade --out cascade.trec",
    ),
    Step(
        "runs/export-serving-json",
        "runs export store second --format serving --out s.parquet --json",
    ),
    Step("runs/publish-held-back", "runs publish store held"),
    Step("runs/publish-older", "runs publish store first"),
    Step("runs/show-held-back", "runs show store held"),
    Step("runs/publish-forced-json", "runs publish store held --force --json"),
]

_EVALUATE = "evaluate config.yaml --run first "

# These write a report into the run they read, each the whole of it: one after the other.
REPORTS = [
    Step("evaluate/run", _EVALUATE),
    Step("evaluate/run-json", _EVALUATE + "--json"),
    Step("evaluate/latest-json", "evaluate config.yaml --run latest --json"),
    Step("evaluate/segments", _EVALUATE + "--set evaluation.segments=[market]"),
    Step("evaluate/segments-json", _EVALUATE + "--set evaluation.segments=[market] --json"),
    Step(
        "evaluate/clicks",
        _EVALUATE + "--set evaluation.labels=clicks --set clicks.path=data/clicks.parquet",
    ),
    Step(
        "evaluate/clicks-json",
        _EVALUATE + "--set evaluation.labels=clicks --set clicks.path=data/clicks.parquet "
        "--set clicks.propensity.eta=0.7 --json",
    ),
    Step("evaluate/outcomes", _EVALUATE + "--set outcomes.path=data/outcomes.parquet"),
    Step("evaluate/outcomes-json", _EVALUATE + "--set outcomes.path=data/outcomes.parquet --json"),
    Step(
        "evaluate/answers-capped",
        _EVALUATE + _ANSWERS + "--set 'cost={prices: {llm: {request: 1.0}}, cap: 0.5}'",
    ),
    Step("evaluate/answers-json", _EVALUATE + _ANSWERS + _PRICES + "--json"),
    Step("evaluate/holds", _EVALUATE + "--fail-under 'nDCG@10>=0.01' --markdown holds.md"),
    Step("evaluate/fails", _EVALUATE + "--fail-under 'nDCG@10>=0.99' --markdown fails.md"),
    Step("evaluate/fails-json", _EVALUATE + "--fail-under 'nDCG@10>=0.99' --json"),
    Step("evaluate/no-worse-than", _EVALUATE + "--no-worse-than second --margin 0.02"),
    Step("evaluate/no-worse-than-json", _EVALUATE + "--no-worse-than latest --json"),
    Step(
        "evaluate/calibrate-gate",
        "evaluate config.yaml --run judged --calibrate-gate --set reranker.gate=null",
    ),
    Step(
        "evaluate/calibrate-gate-json",
        "evaluate config.yaml --run judged --calibrate-gate --confidence 0.9 "
        "--set 'reranker.gate={signal: top1, max_loss: 0.1}' --json",
    ),
    Step("evaluate/systems-of-a-run-json", "evaluate compare.yaml --run systems --json"),
]

_DRY = "rerank config.yaml --dry-run "
_BAD = "rerank config.yaml --run-id never "

READS = [
    Step("sample/table", "sample sample-1 --docs 40 --queries 12"),
    Step("sample/json", "sample sample-2 --docs 40 --queries 12 --seed 1 --json"),
    Step("rerank/dry-run", _DRY),
    Step("rerank/dry-run-json", _DRY + "--json"),
    Step("rerank/dry-run-log-json", _DRY + "--log-format json"),
    Step("rerank/dry-run-verbose", _DRY + "--set reranker.topk=3 -v"),
    Step("rerank/dry-run-hybrid", _DRY + HYBRID + _CASCADE),
    Step("rerank/dry-run-head", _DRY + "--set queries.head.share=0.5 --json"),
    Step("rerank/dry-run-exclude", _DRY + "--set retrieval.exclude.path=data/excluded.txt"),
    Step("rerank/dry-run-tsv", _DRY + "--set queries.path=data/log.tsv --json"),
    Step(
        "rerank/dry-run-topics",
        _DRY + "--set queries.path=data/log.topics --set queries.format=trec-topics --json",
    ),
    Step("rerank/dry-run-jsonl", _DRY + "--set queries.path=data/log.jsonl --json"),
    Step("rerank/dry-run-trec-qrels", _DRY + "--set qrels.path=data/qrels.trec --json"),
    Step("rerank/dry-run-filter", _DRY + "--set 'queries.filter=[[market, ==, de]]' --json"),
    Step(
        "rerank/dry-run-given",
        _DRY + "--set retrieval.sources=[dense,given] --set retrieval.given.trec=data/other.trec",
    ),
    Step("rerank/dry-run-service", _DRY + _SERVICE + "--json"),
    Step("rerank/dry-run-without-reranker", _DRY + "--set reranker=null --json"),
    Step("rerank/dry-run-index-in-groups", _DRY + "--set compute.index_memory_gb=0.00001 --json"),
    Step(
        "build-index/dry-run-beir",
        "build-index config.yaml --dry-run --set corpus.path=beir/corpus.jsonl --json",
    ),
    Step("build-index/dry-run-collection-json", "build-index beir.yaml --dry-run --json"),
    Step("rerank/dry-run-collection", "rerank beir.yaml --dry-run"),
    Step(
        "rerank/dry-run-date",
        _DRY + "--set 'queries.path=data/log-{yesterday}.parquet' --date 2026-01-02",
    ),
    Step("evaluate/dry-run", "evaluate config.yaml --dry-run"),
    Step("evaluate/dry-run-systems-json", "evaluate compare.yaml --dry-run --json"),
    Step("make-labels/dry-run", "make-labels config.yaml --run first --out never --dry-run"),
    Step(
        "make-labels/dry-run-json",
        "make-labels config.yaml --run first --out never --dry-run --json "
        f"--set labels.source=teacher {_SPLIT}",
    ),
    Step(
        "make-labels/dry-run-llm",
        f"make-labels config.yaml --run first --out never --dry-run {_LLM} {_PRICES}",
    ),
    Step(
        "make-labels/dry-run-llm-json",
        f"make-labels config.yaml --run first --out never --dry-run --json {_LLM} {_PRICES}",
    ),
    Step(
        "make-labels/dry-run-clicks-json",
        "make-labels config.yaml --run first --out never --dry-run --json "
        "--set labels.source=clicks --set clicks.path=data/clicks.parquet",
    ),
    Step("lookup/root", "lookup store 'theta paper' --job tiny --run first"),
    Step("lookup/root-known", "lookup store '{query}' --job tiny --run first"),
    Step("lookup/root-known-json", "lookup store '{query}' --job tiny --run first --json"),
    Step("lookup/serving", "lookup exported.serving '{query}'"),
    Step("lookup/serving-json", "lookup exported.serving '{query}' --json"),
    Step("lookup/unknown-json", "lookup exported.serving 'nobody asked this' --json"),
    Step("lookup/several-jobs", "lookup store '{query}'"),
    Step("runs/list", "runs list store"),
    Step("runs/list-json", "runs list store --json"),
    Step("runs/list-of-none", "runs list nowhere"),
    Step("runs/show", "runs show store first"),
    Step("runs/show-json", "runs show store first --json"),
    Step("runs/show-systems", "runs show store systems"),
    Step("runs/show-labels", "runs show store labels-1"),
    Step("runs/show-forced", "runs show store held"),
    Step("runs/show-forced-json", "runs show store held --json"),
    Step("runs/verify", "runs verify store first"),
    Step("runs/verify-json", "runs verify store first --json"),
    Step("runs/verify-systems-json", "runs verify store systems --json"),
    Step("runs/verify-labels-json", "runs verify store labels-1 --json"),
    Step("runs/verify-damaged", "runs verify damaged first"),
    Step("runs/verify-damaged-json", "runs verify damaged first --json"),
    Step("runs/gc", "runs gc store"),
    # Reports tell times, so that their sizes differ by a few bytes.
    Step("runs/gc-keep-json", "runs gc store --keep 1 --json", hides=("bytes",)),
    Step("benchmark/done", "benchmark done --rows 10000", timed=True),
    Step("benchmark/done-json", "benchmark done --rows 10000 --json"),
    Step("benchmark/cache", "benchmark cache --pairs 5000 --windows 2", timed=True),
    Step("benchmark/cache-json", "benchmark cache --pairs 5000 --windows 2 --json"),
    Step(
        "benchmark/retrieval-json",
        "benchmark retrieval --documents 1000 --dimension 8 --queries 16 --k 5 --kind Flat "
        "--rounds 1 --json",
    ),
    Step(
        "benchmark/evaluation-json",
        "benchmark evaluation --queries 200 --candidates 10 --peer-queries 50 --json",
    ),
    # What a user gets wrong on the command line or in the configuration.
    Step("errors/no-command", ""),
    Step("errors/unknown-command", "rerenk config.yaml"),
    Step("errors/unknown-option", "rerank config.yaml --nonsense"),
    Step("errors/missing-argument", "rerank"),
    Step("errors/bad-choice", "runs export store first --format csv --out x"),
    Step("errors/out-of-range", "evaluate config.yaml --confidence 2"),
    Step("errors/no-config", "rerank nowhere.yaml"),
    Step("errors/config-is-a-list", "rerank list.yaml"),
    Step("errors/config-is-broken", "rerank broken.yaml"),
    Step("errors/key-twice", "rerank twice.yaml"),
    Step("errors/unknown-variable", "rerank '$NO_SUCH_VARIABLE/config.yaml'"),
    Step("errors/unknown-key", _BAD + "--set reranker.topk=3"),
    Step("errors/unknown-key-json", _BAD + "--set reranker.topk=3 --json"),
    Step("errors/unknown-key-log-json", _BAD + "--set reranker.topk=3 --log-format json"),
    Step("errors/unknown-section", _BAD + "--set retriever.depth=3"),
    Step("errors/override-without-value", _BAD + "--set retrieval.depth"),
    Step("errors/override-of-a-value", _BAD + "--set job.name=x"),
    Step("errors/wrong-type", _BAD + "--set retrieval.depth=many"),
    Step("errors/depth-below-one", _BAD + "--set retrieval.depth=0"),
    Step("errors/top-k-over-depth", _BAD + "--set reranker.top_k=30"),
    Step("errors/bad-job-name", _BAD + "--set 'job=My Job'"),
    Step("errors/bad-run-id", "rerank config.yaml --run-id 'My Run'"),
    Step("errors/bad-signal", _BAD + "--set reranker.gate.signal=luck"),
    Step("errors/bad-measure", _BAD + "--set 'evaluation.measures=[nDGC@10]'"),
    Step("errors/credentials", _BAD + "--set root=s3://me:secret@bucket/x"),
    Step("errors/bm25-not-built", _BAD + "--set retrieval.sources=[dense,bm25]"),
    Step("errors/one-system", "evaluate config.yaml --set 'evaluation.systems={a: {}}'"),
    Step("errors/guard-not-measured", _BAD + "--set 'guards.measure={R@5: 0.1}'"),
    Step("errors/run-id-and-resume", "rerank config.yaml --run-id a --resume b"),
    Step("errors/take-over-alone", "rerank config.yaml --take-over"),
    Step("errors/or-resume-alone", "rerank config.yaml --or-resume"),
    Step("errors/run-and-run-id", "evaluate config.yaml --run first --run-id x"),
    Step("errors/bad-date", "rerank config.yaml --date yesterday"),
    Step("errors/bad-template", _BAD + "--set 'queries.path=data/{today}.parquet'"),
    Step("errors/bad-floor", _EVALUATE + "--fail-under nDCG@10"),
    Step("errors/floor-not-measured", _EVALUATE + "--fail-under 'R@7>=0.5'"),
    Step("errors/calibrate-and-floor", _EVALUATE + "--calibrate-gate --fail-under 'RR@10>=0'"),
    # … in files.
    Step("errors/no-log", _BAD + "--set queries.path=nowhere.parquet"),
    Step("errors/no-corpus", _BAD + "--set corpus.path=nowhere.parquet"),
    Step("errors/no-qrels", _BAD + "--set qrels.path=nowhere.parquet"),
    Step("errors/no-collection", "build-index beir.yaml --dry-run --set collection=nowhere"),
    Step("errors/log-without-query", _BAD + "--set queries.path=data/no-query.parquet"),
    Step("errors/qrels-without-document", _BAD + "--set qrels.path=data/no-doc.parquet"),
    Step("errors/log-cut-short", _BAD + "--set queries.path=data/short.parquet"),
    Step("errors/id-with-two-texts", _BAD + "--set queries.path=data/twice.parquet"),
    Step("errors/bad-grade", _BAD + "--set qrels.path=data/bad.trec"),
    Step(
        "errors/document-twice",
        "build-index config.yaml --dry-run "
        "--set corpus.path=data/doubled.parquet --set index.path=index-3",
    ),
    Step("errors/no-segment-column", _EVALUATE + "--set evaluation.segments=[country]"),
    Step("errors/outcomes-of-other-columns", _EVALUATE + "--set outcomes.path=data/qrels.parquet"),
    # … and everything else that has an exit code of its own.
    Step("errors/no-index", _BAD + "--set index.path=nowhere"),
    Step("errors/other-index", _BAD + "--set index.shards=3"),
    Step("errors/other-corpus", _BAD + "--set corpus.path=data/corpus-2.parquet"),
    Step("errors/no-model-family", _BAD + "--set reranker.model=magic:x"),
    Step("errors/no-model", _BAD + "--set reranker.model=cross-encoder:models/nowhere"),
    Step("errors/too-many-rejects", _BAD + "--set limits.max_rejects=0"),
    Step("errors/root-is-a-file", _BAD + "--set root=a-file/runs"),
    Step("errors/run-exists", "rerank config.yaml --run-id first"),
    Step("errors/run-exists-or-resume", "rerank config.yaml --run-id first --or-resume"),
    Step("errors/resume-nothing", "rerank config.yaml --resume nobody"),
    Step(
        "errors/resume-with-other-settings",
        "rerank config.yaml --resume first --set retrieval.depth=10",
    ),
    Step("errors/evaluate-no-run", "evaluate config.yaml --run nobody"),
    Step("errors/evaluate-no-latest", "evaluate config.yaml --run latest --set job=nothing"),
    Step("errors/evaluate-without-qrels", _EVALUATE + "--set qrels=null"),
    Step("errors/show-no-run", "runs show store nobody"),
    Step("errors/verify-no-run", "runs verify store nobody"),
    Step("errors/export-no-system", "runs export store first --system magic --out x.trec"),
    Step(
        "errors/export-serving-retrieval",
        "runs export store first --format serving --system retrieval --out x.parquet",
    ),
    Step("errors/lookup-no-job", "lookup store alpha --job nothing"),
    Step("errors/lookup-no-file", "lookup nowhere.parquet alpha"),
    Step("errors/labels-no-run", "make-labels config.yaml --run nobody --out never"),
    Step("errors/labels-over-a-data-set", "make-labels config.yaml --run first --out data"),
    Step("errors/labels-dry-run-of-new", "make-labels config.yaml --run new --out never --dry-run"),
    Step(
        "errors/labels-without-judge", "make-labels config.yaml --out never --set labels.source=llm"
    ),
    Step(
        "errors/labels-bad-split",
        "make-labels config.yaml --out never --set 'labels.split={dev: 0.5, test: 0.5}'",
    ),
    Step("errors/finetune-no-labels", "finetune finetune.yaml --labels nowhere --out never"),
    Step("errors/finetune-over-a-model", "finetune finetune.yaml --labels labels-1 --out tuned"),
    Step(
        "errors/finetune-bad-model",
        "finetune finetune.yaml --labels labels-1 --out never "
        "--set model=late-interaction:models/encoder",
    ),
    Step(
        "errors/finetune-unknown-key",
        "finetune finetune.yaml --labels labels-1 --out never --set epochs=3",
    ),
    Step(
        "errors/finetune-resume-nothing",
        "finetune finetune.yaml --labels labels-1 --out never --resume",
    ),
    Step("errors/delta-of-nothing", "export-delta nowhere never"),
    Step("export-delta/of-an-encoder", "export-delta tuned delta-3 --base models/encoder"),
    Step("errors/delta-over-a-folder", "export-delta tuned data --base models/cross"),
    Step("errors/benchmark-bad-kind", "benchmark retrieval --documents 1000 --kind Magic"),
    Step("errors/benchmark-labels", "benchmark labels --documents 100 --candidates 200"),
    Step("errors/rehearsal-half-a-rate", "benchmark rehearsal config.yaml --pairs-per-second 3"),
    Step("errors/gc-keeps-none", "runs gc store --keep 0"),
    Step("errors/abort-a-complete-run", "runs abort store first"),
    Step("errors/publish-unfinished", "runs publish store refused"),
]

END = [
    # Begins a run, which others would see.
    Step(
        "errors/encoder-as-cross-encoder", _BAD + "--set reranker.model=qwen3-reranker:models/cross"
    ),
    Step("runs/abort", "runs abort store refused"),
    Step("runs/abort-again-json", "runs abort store refused --json"),
    Step("runs/resume-aborted", f"rerank config.yaml --resume refused --set job=s {_REFUSED}"),
    Step("runs/gc-of-a-job", "runs gc store --job s"),
    Step("runs/gc-delete-json", "runs gc store --keep 1 --delete --json", hides=("bytes",)),
    Step("runs/list-after", "runs list store"),
]
