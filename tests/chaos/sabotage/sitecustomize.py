"""Breaks the protocol on purpose, in every Python process whose PYTHONPATH leads here.

RERANK_BATCH_SABOTAGE names what to break, parted by commas:

    overwrite       create-once overwrites what is there
    any-epoch       commits of every epoch count, and a driver that was replaced goes on
    die-before:X    the driver is killed before it writes final.json (final) or latest.json (latest)
    die-on:WORD     the process that scores a query with WORD ends at once, like one out of memory
    fail-on:WORD    scoring a query with WORD raises an error
    nan-on:WORD     scoring a query with WORD gives no number
    memory:TOKENS   a forward pass over more than TOKENS tokens runs out of memory
"""

import os
import signal


def _overwrite() -> None:
    from rerank_batch.storage.folder import Folder
    from rerank_batch.storage.s3 import Bucket

    def folder(self, key, data):
        with self._staged(key) as staged:
            staged.write_bytes(data)
            staged.replace(self.path(key))
        return True

    def bucket(self, key, data):
        return self._put_if(key, data, {})

    Folder.create_once, Bucket.create_once = folder, bucket
    Folder.check_writes = Bucket.check_writes = lambda self: None


def _any_epoch() -> None:
    from rerank_batch.run import protocol

    protocol.refuse_if_taken_over = lambda *_: None
    protocol.Run.counting = lambda self: sorted(self._listed_commits())


def _die_before(moment) -> None:
    from rerank_batch.run.protocol import Run

    name = {"final": "finish", "latest": "publish"}[moment]
    setattr(Run, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))


def _scoring(word, happens) -> None:
    from rerank_batch.rerankers.cross_encoder import CrossEncoderScorer

    score = CrossEncoderScorer.score

    def broken(self, queries, documents):
        scores = score(self, queries, documents)
        for row, query in enumerate(queries):
            if word in query.split():
                happens(scores, row)
        return scores

    CrossEncoderScorer.score = broken


def _die(*_) -> None:
    os._exit(137)


def _fail(*_) -> None:
    raise RuntimeError("a secret text must not be in any log")


def _nan(scores, row) -> None:
    scores.values[row][:] = float("nan")


def _memory(tokens) -> None:
    from rerank_batch.rerankers.cross_encoder import CrossEncoderScorer

    logits = CrossEncoderScorer._logits

    def hungry(self, pairs):
        if self._budget.tokens > int(tokens):
            raise MemoryError
        return logits(self, pairs)

    CrossEncoderScorer._logits = hungry


_BREAKS = {
    "overwrite": lambda _: _overwrite(),
    "any-epoch": lambda _: _any_epoch(),
    "die-before": _die_before,
    "die-on": lambda word: _scoring(word, _die),
    "fail-on": lambda word: _scoring(word, _fail),
    "nan-on": lambda word: _scoring(word, _nan),
    "memory": _memory,
}

for part in filter(None, os.environ.get("RERANK_BATCH_SABOTAGE", "").split(",")):
    name, _, what = part.partition(":")
    _BREAKS[name](what)
