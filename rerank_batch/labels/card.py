"""The dataset card: what the labels are made of, by which rules, and what a few of them look like.

Texts of queries and documents are strangers' words: they are escaped and cut. Knows the card's
facts, not where they come from.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rerank_batch.evaluation.report.markdown import escape
from rerank_batch.labels.judge.agreement import in_words
from rerank_batch.labels.rows import SPLITS
from rerank_batch.remarks import counts_in_words

_CHARS = 160

_RULES = {
    "judged_relevant": "judged relevant",
    "judged_partly": "judged, but below the grade of a positive",
    "held_out": "relevant to a query of a stricter split",
    "not_in_corpus": "not in the corpus",
    "share": "teacher score above the share of the positive's",
    "margin": "teacher score within the margin of the positive's",
    "score": "teacher score above the limit",
    "probability": "teacher probability above the limit",
    "exact_duplicate": "the words of a positive",
    "near_duplicate": "nearly the words of a positive",
}


def markdown(card: Mapping[str, Any]) -> str:
    """The card as Markdown, with the front matter that model hubs read."""
    license = card["license"]
    leaks = card["leak_check"]
    rejects = {escape(reason): count for reason, count in card["rejects"].items()}
    parts = [
        f"---\nlicense: {json.dumps(license)}\n---" if license else "",
        "# Training labels",
        _table(["", ""], _sources(card)),
        *_judge(card["source"].get("judge")),
        "## Rows",
        _table(["split", "queries", "positives", "negatives"], _splits(card)),
        f"{card['queries']:,} queries in {card['groups']:,} groups. Rejected: "
        f"{counts_in_words(rejects)}. Rows without a teacher score: "
        f"{card['rows_without_teacher_score']:,}.",
        _table(["role: grade", "rows"], _counts(card["label_distribution"])),
        _table(["role: origin", "rows"], _counts(card["origins"])),
        "## What was kept out",
        f"{card['looked_at']:,} documents were looked at for negatives.",
        _table(
            ["rule", "setting", "documents"],
            [
                [words, _setting(card["rules"], name), f"{card['removed'][name]:,}"]
                for name, words in _RULES.items()
            ],
        ),
        "## Leak check",
        f"**{'passed' if leaks['passed'] else 'FAILED'}**: no query, no query with a Jaccard "
        f"similarity of words of {leaks['similarity']:g} or more, and no relevant document of a "
        "stricter split stands in a looser one."
        if leaks["passed"]
        else f"**FAILED**: {escape('; '.join(leaks['leaks']))}",
        "## Files",
        _table(
            ["file", "rows", "bytes", "sha256"],
            [
                [name, f"{each['rows']:,}", f"{each['bytes']:,}", each["sha256"]]
                for name, each in card["files"].items()
            ],
        ),
        _table(["format", "read by"], [[n, r] for n, r in card["formats"].items()])
        if card["formats"]
        else "",
        f"## {len(card['samples'])} rows",
        _table(
            ["query", "document", "role", "label", "teacher", "origin", "split"],
            [_sample(row) for row in card["samples"]],
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sources(card: Mapping[str, Any]) -> list[list[str]]:
    source = card["source"]
    teacher = source["teacher"]
    told = f"{teacher['model']}, fingerprint {teacher['fingerprint']}" if teacher else "none"
    mode = f", in {teacher['mode']}" if teacher and teacher.get("mode") else ""
    return [
        ["truth", source["truth"]],
        ["judgements", source["judgements"]],
        ["mined in run", source["run"]],
        ["other runs", ", ".join(source["others"]) or "none"],
        ["teacher", told + mode],
        ["corpus", f"{source['documents']:,} documents, fingerprint {source['corpus']}"],
        ["license", card["license"] or "not stated"],
        ["label run", card["run"]],
        ["fingerprint", card["fingerprint"]],
        ["created", card["created"]],
    ]


def _judge(facts: Mapping[str, Any] | None) -> list[str]:
    """What a language model graded, and how far that can be relied on."""
    if facts is None:
        return []
    grades = [[f"grade {grade}", f"{count:,}"] for grade, count in facts["grades"].items()]
    ungraded = [[f"no grade: {reason}", f"{n:,}"] for reason, n in facts["ungraded"].items()]
    parts = [
        "## The judge",
        "Grades are a language model's and not people's: how far it agrees with itself and with "
        "judgements says how far they can be relied on.",
        _table(["", ""], _judge_facts(facts)),
        _table(["pairs", f"{facts['pairs']:,}"], [*grades, *ungraded]),
    ]
    if (twice := facts["second_opinion"]) is not None:
        parts += _agreement("Second opinion", twice, "first / second")
    if (others := facts["judgements"]) is not None:
        parts += _agreement("Judgements", others, "judge / judgements")
    return parts


def _judge_facts(facts: Mapping[str, Any]) -> list[list[str]]:
    cost = f"{facts['cost']:,.4f} {facts['currency']}" if facts["priced"] else "no price given"
    used = facts["used"]
    lost = "".join(f", {reason} {count:,}" for reason, count in facts["no_second"].items())
    return [
        ["model", facts["model"]],
        ["rubric", f"{facts['rubric']}, sha256 {facts['rubric_sha256']}"],
        ["prompts", ", ".join(facts["prompts_used"])],
        ["read of each text", f"{facts['max_chars']:,} characters; {facts['cut']:,} pairs cut"],
        ["judged twice", f"{facts['double']:g} of the pairs, by a hash of their ids{lost}"],
        [
            "cost",
            f"{cost}: {used['requests']:,} requests, {used['tokens']:,} tokens in, "
            f"{used['output_tokens']:,} out",
        ],
    ]


def _agreement(head: str, found: Mapping[str, Any], corner: str) -> list[str]:
    rows = zip(found["grades"], found["table"], strict=True)
    return [
        f"### {head}",
        f"{escape(in_words(found))}: {escape(found['how'])}.",
        _table(
            [corner, *found["grades"]],
            [[grade, *(f"{count:,}" for count in counts)] for grade, counts in rows],
        ),
    ]


def _splits(card: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            split,
            f"{card['split_queries'][split]:,}",
            *(f"{card['rows'].get(f'{split} {role}', 0):,}" for role in ("positive", "negative")),
        ]
        for split in SPLITS
    ]


def _setting(rules: Mapping[str, Any], name: str) -> str:
    if name not in rules or name == "held_out":
        return ""
    value = rules[name]
    return "off" if value is None or value is False else "on" if value is True else f"{value:g}"


def _sample(row: Mapping[str, Any]) -> list[str]:
    label, score = row["label"], row["teacher_score"]
    return [
        _cut(row["query"]),
        _cut(row["document"]),
        row["role"],
        "–" if label is None else f"{label:g}",
        "–" if score is None else f"{score:.4f}",
        row["origin"],
        row["split"],
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _CHARS else f"{text[: _CHARS - 1]}…"


def _counts(counts: Mapping[str, int]) -> list[list[str]]:
    return [[name, f"{count:,}"] for name, count in counts.items()]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(map(escape, heads)), ["---"] * len(heads)]
    lines += [list(map(escape, row)) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
