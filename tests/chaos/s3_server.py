"""A real S3 server (SeaweedFS) as a child process that can be killed and started again.

It knows nothing of what is stored in it, and nothing of the faults a proxy may put before it.
"""

import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BINARY = Path(sys.executable).with_name("weed")
HOST = "127.0.0.1"
GRPC_OFFSET = 10_000
PR_SET_PDEATHSIG = 1
# Loaded here: nothing may be loaded between fork and exec of a process with threads.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class S3Server:
    """One server over one folder; its port is chosen at the first start and stays.

    Linux ties the server's life to the thread that started it: start it from a thread that lasts.
    """

    access_key = "testkey"

    def __init__(self, folder: Path, secret_key: str = "testsecret") -> None:
        self.folder = folder
        self.secret_key = secret_key
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.base: int | None = None

    def __enter__(self) -> "S3Server":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        if self.base is None:
            raise RuntimeError("the server was never started")
        return self.base + 3

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use this server by default."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, endpoint: str | None = None) -> Any:
        """A boto3 client that never retries, of this server or of a proxy before it."""
        config = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=3,
            read_timeout=5,
            s3={"addressing_style": "path"},
        )
        return boto3.client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=config,
        )

    def create_bucket(self, name: str) -> None:
        self.client().create_bucket(Bucket=name)

    def start(self) -> None:
        """Start on free ports, or on those of the last start, and wait until a put succeeds."""
        if self.process is not None:
            raise RuntimeError("the server is running")
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.base is None:
            self.base = free_base()
        identity = {
            "name": "admin",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}), "utf-8")
        # The server would take identities of its own from AWS_* and buckets from S3_BUCKET.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "S3_"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(self.base),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment | {"GOMEMLIMIT": "256MiB"},
                start_new_session=True,
                preexec_fn=die_with(os.getpid()) if LIBC else None,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def restart(self) -> None:
        """Start again over the same folder and on the same port."""
        self.kill()
        self.start()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            # Not reaped before `wait`, so its number cannot have gone to another process.
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End it in order, or by force where that takes over four seconds."""
        if self.process is not None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=4)
            self.kill()
        if self.base is not None:
            for port in range(self.base, self.base + 5):
                for used in (port, port + GRPC_OFFSET):
                    # SeaweedFS's own fixed place for its sockets.
                    for left in Path("/tmp").glob(f"seaweedfs-*-{used}.sock"):
                        left.unlink(missing_ok=True)

    def _command(self, base: int) -> list[str]:
        return [
            str(BINARY),
            "-logtostderr=true",
            "mini",
            f"-dir={self.folder}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            f"-master.port={base}",
            f"-volume.port={base + 1}",
            f"-filer.port={base + 2}",
            f"-s3.port={base + 3}",
            f"-admin.port={base + 4}",
            f"-s3.config={self.folder / 's3.json'}",
            "-s3.autoCreateBucket=false",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
        ]

    def _wait_until_ready(self) -> None:
        """A put into a bucket of its own proves all the server's parts have found each other."""
        client = self.client()
        process = self.process
        assert process is not None
        deadline = time.monotonic() + 30
        while True:
            try:
                try:
                    client.create_bucket(Bucket="probe")
                except ClientError as error:
                    if not error.response["Error"]["Code"].startswith("BucketAlready"):
                        raise
                client.put_object(Bucket="probe", Key="ready", Body=b"ready")
                return
            except (BotoCoreError, ClientError) as error:
                ended = process.poll()
                if ended is None and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                state = "not ready after 30 s" if ended is None else f"ended with {ended}"
                tail = self.log.read_text("utf-8", "replace")[-4000:]
                raise RuntimeError(f"the S3 server is {state} ({error}):\n{tail}") from error


def die_with(parent: int) -> Callable[[], None]:
    """What the child runs before exec, so that even a kill -9 of its parent ends it."""

    def ask_for_it() -> None:
        assert LIBC is not None
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the request was in place
            os._exit(1)

    return ask_for_it


def free_base() -> int:
    """The first of five free ports whose companions for gRPC are free too."""
    rng = random.SystemRandom()  # seeded tests that run side by side must not meet
    while True:
        base = rng.randrange(10_000, 22_000)
        if all(is_free(base + n) and is_free(base + n + GRPC_OFFSET) for n in range(5)):
            return base


def is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True
