"""Rounds of a real run under kills and faults, each ended by a resume and judged by what is there.

A round never looks into the process it torments: it watches the root, kills processes, and at the
end asks what every user asks: is the run whole, and is it the run that an undisturbed driver makes?
"""

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import psutil

from rerank_batch.errors import ComputeError, RerankBatchError, RunConflict, StorageError
from rerank_batch.runs import Run, latest_run
from rerank_batch.storage import Root, open_root
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.project import BLOCK_ROWS, QUERIES, Project, content
from tests.chaos.s3_server import S3Server

BLOCKS = QUERIES // BLOCK_ROWS
FAULTS = {"unavailable": 0.04, "reset": 0.03, "truncate": 0.03, "lost": 0.04, "slow": 0.02}
PATIENCE = 180.0
MOST_DRIVERS = 8
SCENES = ("two new drivers", "a second driver", "a take-over")
CATCHES = {"overwrite": "two new drivers", "any-epoch": "a take-over"}
"""The scene in which each way of breaking the protocol on purpose has to show itself."""

WRITE_ONCE = ("spec.json", "final.json", "epochs/", "commits/")


@dataclass
class Tally:
    """What was done to the rounds of one kind of root, and what came of it."""

    kind: str
    rounds: int = 0
    driver_kills: int = 0
    worker_kills: int = 0
    server_kills: int = 0
    two_drivers: int = 0
    failed_drivers: int = 0
    resumes: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Victim:
    """One kind of root with everything needed to torment it; proxy and server only for S3."""

    project: Project
    reference: list[str]
    proxy: FaultProxy | None = None
    server: S3Server | None = None
    keeper: ThreadPoolExecutor | None = None

    @property
    def root(self) -> Root:
        return open_root(self.project.root)


class Round:
    """One run id from its first driver to its verification."""

    def __init__(self, victim: Victim, tally: Tally, seed: str, logs: Path) -> None:
        self.victim, self.tally = victim, tally
        self.rng = random.Random(seed)
        self.run_id = f"round-{seed}".lower()
        self.log = logs / f"{self.run_id}.log"
        self.seen: dict[str, bytes] = {}
        self.drivers: list[subprocess.Popen[bytes]] = []

    def play(self, scene: str | None = None) -> None:
        """``scene``: how two drivers meet before anything else happens, see `SCENES`."""
        began = time.monotonic()
        self.tally.rounds += 1
        with self._faults(), self._watching():
            if scene:
                self._two_drivers(scene)
            for _ in range(self.rng.choice([0, 1, 1, 2])):
                self._one_driver_killed()
            self._to_the_end()
        self._judge()
        self.tally.seconds += time.monotonic() - began

    # --- what happens to the run -----------------------------------------------------------

    def _one_driver_killed(self) -> None:
        if self._is_final():
            return
        driver = self._start()
        moment = self.rng.choice(["starting", "working", "working", "working", "final"])
        if self.rng.random() < 0.5:
            self._wait(driver, lambda: self._commits() > 0)
            self._kill_a_worker()
        if moment == "starting":
            self._wait(driver, lambda: False, self.rng.uniform(0.5, 15))
        elif moment == "working":
            goal = self._commits() + self.rng.randint(1, BLOCKS // 2)
            self._wait(driver, lambda: self._commits() >= min(goal, BLOCKS))
        else:
            self._wait(driver, self._is_final)
        if driver.poll() is None:
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
            self.tally.driver_kills += 1
        else:
            self._ended(driver)

    def _two_drivers(self, scene: str) -> None:
        """Two at once on one run id: exactly one may get it."""
        self.tally.two_drivers += 1
        first = self._start()
        if scene == "two new drivers":
            time.sleep(self.rng.uniform(0, 4))
            self._finish_both(first, self._start(new=True), scene)
            return
        goal = self.rng.randint(1, BLOCKS // 3)
        self._wait(first, lambda: self._commits() >= goal)
        if scene == "a second driver":
            self._finish_both(first, self._start(), scene)
            return
        # The first freezes, as on a machine that sleeps, and wakes when it has been replaced.
        if first.poll() is None:
            first.send_signal(signal.SIGSTOP)
        second = self._start("--take-over")
        self._wait(second, lambda: self._epochs() > 1)
        replaced = self._epochs() > 1 and not self._is_final()
        if first.poll() is None:
            first.send_signal(signal.SIGCONT)
        self._finish_both(first, second, scene)
        if replaced and first.returncode == 0:
            self._fault("a driver that had been replaced made the run all the same")

    def _finish_both(
        self,
        first: "subprocess.Popen[bytes]",
        second: "subprocess.Popen[bytes]",
        what: str,
    ) -> None:
        was_final = self._is_final()
        for driver in (first, second):
            self._wait(driver, lambda: False)
            if driver.poll() is None:
                self._fault(f"{what}: a driver still runs after {PATIENCE:.0f} s")
                driver.kill()
                driver.wait()
        codes = [first.returncode, second.returncode]
        if codes == [0, 0] and not was_final:
            self._fault(f"{what}: both drivers say that they made the run")
        # Not the owner; or the owner, until the store failed it.
        losers = (RunConflict.exit_code, StorageError.exit_code, ComputeError.exit_code)
        if 0 in codes and not was_final and not set(codes) & set(losers):
            self._fault(f"{what}: exit codes {codes}, the other was not refused as not the owner")

    def _to_the_end(self) -> None:
        for _ in range(MOST_DRIVERS):
            if self._is_final() and self._is_latest():
                return
            driver = self._start()
            if self.rng.random() < 0.4:
                self._wait(driver, lambda: self._commits() > 0)
                self._kill_a_worker()
            self._wait(driver, lambda: False)
            if driver.poll() is None:
                self._fault(f"a driver still runs after {PATIENCE:.0f} s")
                driver.kill()
            driver.wait()
            if driver.returncode == 0:
                return
            self._ended(driver)
            if self.tally.failed_drivers and self.victim.proxy:
                # A store that fails for ever cannot be outlived: it gets better from here.
                self.victim.proxy.rates = {k: v / 2 for k, v in self.victim.proxy.rates.items()}
        self._fault(f"not complete after {MOST_DRIVERS} drivers")

    def _kill_a_worker(self) -> None:
        workers = []
        for process in psutil.process_iter(["cmdline"]):
            title = " ".join(process.info["cmdline"] or [])
            if "MapBatches(" in title:
                workers.append(process)
        if workers:
            with suppress(psutil.NoSuchProcess):
                self.rng.choice(workers).send_signal(signal.SIGKILL)
                self.tally.worker_kills += 1

    # --- watching --------------------------------------------------------------------------

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """The store misbehaves, and in a third of the rounds it dies and comes back."""
        proxy, server = self.victim.proxy, self.victim.server
        if proxy is None or server is None:
            yield
            return
        before = Counter(proxy.counts)
        proxy.rates = dict(FAULTS)
        killed = None
        if self.victim.keeper and self.rng.random() < 0.34:
            delay, down = self.rng.uniform(5, 25), self.rng.uniform(1, 4)
            killed = self.victim.keeper.submit(self._kill_server, server, delay, down)
        try:
            yield
        finally:
            if killed is not None:
                killed.result()
            proxy.rates = {}
            faults = Counter(proxy.counts) - before
            self.tally.faults += Counter({k: v for k, v in faults.items() if k in FAULTS})

    def _kill_server(self, server: S3Server, delay: float, down: float) -> None:
        time.sleep(delay)
        server.kill()
        self.tally.server_kills += 1
        time.sleep(down)
        server.restart()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """A reader that looks all the time, and a memory of everything that is written once."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.7):
                self._look()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            for driver in self.drivers:
                if driver.poll() is None:
                    driver.kill()
                    driver.wait()

    def _look(self, whole: bool = False) -> None:
        """``whole``: every object written once is read again, not only the few that matter most."""
        root = self.victim.root
        try:
            for key in root.sizes(f"runs/{self.run_id}/"):
                name = key.split("/", 2)[2]
                again = whole or key not in self.seen or not name.startswith("commits/")
                raw = root.read(key) if name.startswith(WRITE_ONCE) and again else None
                if raw is not None and self.seen.setdefault(key, raw) != raw:
                    self._fault(f"{name} was written twice")
                    self.seen[key] = raw
        except RerankBatchError:
            return  # the server is down; that is no fault of the run
        try:
            run = latest_run(root, "chaos")
            files = run.finished()["results"]
            missing = [f["key"] for f in files if root.size(run.listed(f)) != f["bytes"]]
            if missing:
                self._fault(f"latest names {run.run_id}, which lacks {missing[0]}")
        except RunConflict as error:
            if "no finished run" not in str(error):
                self._fault(f"a reader of latest is told: {error}")
        except RerankBatchError:
            return

    def _wait(
        self,
        driver: "subprocess.Popen[bytes]",
        until: Callable[[], bool],
        patience: float = PATIENCE,
    ) -> None:
        """Until something is seen, the driver ends, or patience does."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and driver.poll() is None and not until():
            time.sleep(0.15)

    def _commits(self) -> int:
        return self._count("commits/")

    def _epochs(self) -> int:
        return self._count("epochs/")

    def _count(self, folder: str) -> int:
        with suppress(RerankBatchError):
            return len(self.victim.root.sizes(f"runs/{self.run_id}/{folder}"))
        return 0

    def _is_final(self) -> bool:
        return self._there("final.json")

    def _is_latest(self) -> bool:
        with suppress(RerankBatchError):
            return latest_run(self.victim.root, "chaos").run_id == self.run_id
        return False

    def _there(self, name: str) -> bool:
        with suppress(RerankBatchError):
            return self.victim.root.size(f"runs/{self.run_id}/{name}") is not None
        return False

    # --- drivers ---------------------------------------------------------------------------

    def _start(self, *arguments: str, new: bool = False) -> "subprocess.Popen[bytes]":
        known = not new and self._there("spec.json")
        how = "--resume" if known else "--run-id"
        if known:
            self.tally.resumes += 1
        extra = list(arguments) if known else []
        driver = self.victim.project.driver(self.log, how, self.run_id, *extra)
        self.drivers.append(driver)
        return driver

    def _ended(self, driver: "subprocess.Popen[bytes]") -> None:
        """A driver that ended by itself: well, or with one of the clear failures."""
        if driver.returncode != 0:
            self.tally.failed_drivers += 1
        if driver.returncode not in (0, 5, 6, 8):
            self._fault(f"a driver ended with exit code {driver.returncode}")

    # --- judging ---------------------------------------------------------------------------

    def _judge(self) -> None:
        self._look(whole=True)
        done = self.victim.project.run("runs", "verify", self.victim.project.root, self.run_id)
        if done.returncode != 0:
            self._fault(f"runs verify says: {done.stderr.strip()[-300:]}")
            return
        final = Run.open(self.victim.root, self.run_id).finished()
        found, wanted = content(self.victim.project.root, self.run_id), self.victim.reference
        if found != wanted:
            pairs = zip_longest(found, wanted)
            differing = next(pair for pair in pairs if pair[0] != pair[1])
            self._fault(
                f"the content is not that of an undisturbed run: {len(found)} rows, {differing}, "
                f"noticed on the way: {final['events']}"
            )
        if final["queries"] + sum(final["rejects"].values()) != QUERIES:
            self._fault(f"final.json counts {final['queries']} queries and {final['rejects']}")
        if not self._is_latest():
            self._fault("latest.json names another run")
        said = self.log.read_text(encoding="utf-8", errors="replace")
        if "Traceback" in said or "site-packages" in said:
            self._fault(f"a driver showed a traceback, see {self.log}")

    def _fault(self, what: str) -> None:
        self.tally.violations.append(f"{self.run_id}: {what}")


def to_json(tally: Tally) -> str:
    return json.dumps({**vars(tally), "faults": dict(tally.faults)})
