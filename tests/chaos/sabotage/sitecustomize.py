"""Breaks the protocol on purpose, in every Python process whose PYTHONPATH leads here.

RERANK_BATCH_SABOTAGE names what to break, parted by commas:

    overwrite       create-once overwrites what is there
    any-epoch       commits of every epoch count, and a driver that was replaced goes on
    die-before:X    the driver is killed before it writes final.json (final) or latest.json (latest)
    die-on:WORD     the process that scores a query with WORD ends at once, like one out of memory
    fail-on:WORD    scoring a query with WORD raises an error
    nan-on:WORD     scoring a query with WORD gives no number
    memory:TOKENS   a forward pass over more than TOKENS tokens runs out of memory
    swap:OLD=NEW    the files of folder NEW replace those of OLD once Ray has started: after the
                    plan and before any actor, as a hub repository that moves does
"""

import contextlib
import importlib.abc
import importlib.util
import os
import shutil
import signal
import sys


def _overwrite(_what) -> None:
    def folder(module) -> None:
        def create_once(self, key, data):
            with self._staged(key) as staged:
                staged.write_bytes(data)
                staged.replace(self.path(key))
            return True

        module.Folder.create_once = create_once
        module.Folder.check_writes = lambda self: None

    def bucket(module) -> None:
        module.Bucket.create_once = lambda self, key, data: self._put_if(key, data, {})
        module.Bucket.check_writes = lambda self: None

    _when_imported("rerank_batch.storage.folder", folder)
    _when_imported("rerank_batch.storage.s3", bucket)


def _any_epoch(_what) -> None:
    def patch(module) -> None:
        module.Run.counting = lambda self: sorted(self._listed_commits())

    def epochs(module) -> None:
        module.refuse_if_taken_over = lambda *_: None

    def lease(module) -> None:
        def never_lost(self) -> None:
            while not self._stop.wait(self._every):
                self._renew()
                self.lost = False

        module.Lease._renew_on = never_lost

    _when_imported("rerank_batch.runs.run", patch)
    _when_imported("rerank_batch.runs.epochs", epochs)
    _when_imported("rerank_batch.runs.lease", lease)


def _die_before(moment) -> None:
    def die(*_) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def finish(module) -> None:
        module.Run.finish = die

    def publish(module) -> None:
        module.publish_run = die

    module, patch = {"final": ("run", finish), "latest": ("latest", publish)}[moment]
    _when_imported(f"rerank_batch.runs.{module}", patch)


def _swap(folders) -> None:
    def patch(module) -> None:
        start = module.cluster

        @contextlib.contextmanager
        def swapping(*arguments, **named):
            with start(*arguments, **named) as resources:
                old, new = folders.split("=")
                shutil.copytree(new, old, dirs_exist_ok=True)
                yield resources

        module.cluster = swapping

    _when_imported("rerank_batch.ray_backend.cluster", patch)


def _scoring(happens):
    def on_word(word) -> None:
        def patch(module) -> None:
            score = module.CrossEncoderScorer.score

            def broken(self, queries, documents):
                scores = score(self, queries, documents)
                for row, query in enumerate(queries):
                    if word in query.split():
                        happens(scores, row)
                return scores

            module.CrossEncoderScorer.score = broken

        _when_imported(_SCORER, patch)

    return on_word


def _die(*_) -> None:
    os._exit(137)


def _fail(*_) -> None:
    raise RuntimeError("a secret text must not be in any log")


def _nan(scores, row) -> None:
    scores.values[row][:] = float("nan")


def _memory(tokens) -> None:
    def patch(module) -> None:
        run = module.TorchRuntime.run

        def hungry(self, batch):
            if len(batch.lengths) * batch.lengths.max() > int(tokens):
                raise MemoryError
            return run(self, batch)

        module.TorchRuntime.run = hungry

    _when_imported("rerank_batch.scoring.runtimes.torch", patch)


class _Patcher(importlib.abc.MetaPathFinder):
    """Finds a module as ever and patches it once it is loaded: most processes never load it."""

    def __init__(self, name, patch) -> None:
        self.name, self.patch = name, patch

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            self.patch(module)

        spec.loader.exec_module = exec_module
        return spec


def _when_imported(name, patch) -> None:
    sys.meta_path.insert(0, _Patcher(name, patch))


_SCORER = "rerank_batch.rerankers.cross_encoder"
_BREAKS = {
    "overwrite": _overwrite,
    "any-epoch": _any_epoch,
    "die-before": _die_before,
    "die-on": _scoring(_die),
    "fail-on": _scoring(_fail),
    "nan-on": _scoring(_nan),
    "memory": _memory,
    "swap": _swap,
}

for part in filter(None, os.environ.get("RERANK_BATCH_SABOTAGE", "").split(",")):
    kind, _, what = part.partition(":")
    _BREAKS[kind](what)
