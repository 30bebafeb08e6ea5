"""A network run by OpenVINO, which keeps a CPU busier than torch does.

The network is exported once, under the model's fingerprint, and mapped by every process of the
node. The export uses OpenVINO's frontend itself: its `convert_model` would send usage statistics.
"""

import json
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from rerank_batch.config import Format, digest
from rerank_batch.scoring.modes import Graphs
from rerank_batch.scoring.networks.network import Network
from rerank_batch.scoring.runtimes.base import FloatArray, Unavailable
from rerank_batch.scoring.tokens import TokenBatch

_GRAPH = 2
"""Version of what `_export` makes of a network."""

_FILES = ("graph.xml", "graph.bin")
_SIZES = "sizes.json"
_GROUPS = (128, 64, 32)
_COMPANIES = (2, 33)
_COMPANY_TOKENS = 4
_OF_INT8 = ", where int8 is no faster than fp32: set the precision to fp32 or auto"
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVinoRuntime:
    """Runs the network on the CPU with that many threads, each at a batch of its own.

    Threads that share a batch wait for each other at every layer, so that whatever takes one core
    for a moment stops them all. What it gives for a text does not depend, to the last bit, on how
    many others are in the batch: a kept score stands for one that is computed tonight. That is
    checked on the processor at hand.

    Raises:
        Unavailable: OpenVINO is not installed, cannot express the network, the CPU has no
            instructions for the format, or its kernels give other digits in other company.
    """

    def __init__(
        self, network: Network, format: Format, threads: int, graphs: Graphs | None
    ) -> None:
        openvino, core = _opened(format)
        self._tokens = network.read == "tokens"
        self.even = True
        self.ahead = threads
        try:
            graph = _graph(openvino, core, network, graphs)
            group = _use_int8_weights(graph) if format == "int8" else 0
            compiled = _compiled(core, graph, format, threads, threads, group)
        except RuntimeError as error:
            raise Unavailable(f"OpenVINO cannot run it: {error}") from None
        self._compiled = compiled
        self._of_thread = threading.local()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="openvino")
        self._room = threading.BoundedSemaphore(threads + 1)
        self._refuse_dependence_on_company(format)

    def run(self, batch: TokenBatch) -> "Future[FloatArray]":
        """See `Runtime.run`: waits while every thread has a batch and one more is there."""
        self._room.acquire()
        return self._threads.submit(self._infer, batch)

    def fetch(self, pending: Sequence["Future[FloatArray]"]) -> list[FloatArray]:
        """See `Runtime.fetch`."""
        return [each.result() for each in pending]

    def _refuse_dependence_on_company(self, format: Format) -> None:
        """Compare a text alone with the same text among others, bit by bit.

        On x86-64 with AVX2 only, OpenVINO 2026.4 computes int8 weights in float32, by kernels that
        it picks by the number of rows: nothing is gained there, and the last digits differ.
        """
        alone = self.run(_same_texts(1)).result()
        for texts in _COMPANIES:
            among = self.run(_same_texts(texts)).result()
            if not alone.size or not np.array_equal(among[: len(alone)], alone):
                raise Unavailable(
                    f"OpenVINO's {format} gives a text other digits in other company on this "
                    f"processor{_OF_INT8 if format == 'int8' else ''}"
                )

    def _infer(self, batch: TokenBatch) -> FloatArray:
        try:
            if not hasattr(self._of_thread, "request"):
                self._of_thread.request = self._compiled.create_infer_request()
            output: FloatArray = self._of_thread.request.infer(list(batch.even()))[0]
            # Copied, as the request computes the next batch in the same memory.
            return (output.reshape(-1, output.shape[-1]) if self._tokens else output).copy()
        finally:
            self._room.release()


def compiled_product(weights: FloatArray, format: Format, threads: int) -> Callable[[Any], Any]:
    """What multiplies matrices with these weights, [n, in] by [in, out], as a network's layer is.

    Raises:
        Unavailable: see `OpenVinoRuntime`.
    """
    openvino, core = _opened(format)
    from openvino import opset13 as op

    given = op.parameter([-1, weights.shape[0]], np.float32)
    graph = openvino.Model([op.matmul(given, op.constant(weights), False, False)], [given])
    request = _compiled(core, graph, format, threads, 1).create_infer_request()
    return lambda rows: request.infer([rows])[0]


def _same_texts(texts: int) -> TokenBatch:
    """A batch of equal texts: kernels are picked by the number of rows, not by what they hold."""
    lengths = np.full(texts, _COMPANY_TOKENS)
    zeros = np.zeros(texts * _COMPANY_TOKENS, np.int64)
    return TokenBatch(ids=zeros, types=zeros, positions=zeros, lengths=lengths)


def _opened(format: Format) -> tuple[Any, Any]:
    """OpenVINO and its core, if they can compute in that format here."""
    try:
        import openvino
    except ImportError:
        raise Unavailable("openvino is not installed") from None
    # Its binding looks numpy up when an array first crosses it. Of two threads that are first at
    # once one holds the lock of that look-up, the other the interpreter's, for ever.
    _ = openvino.Tensor(np.zeros(1, np.float32)).data
    core = openvino.Core()
    if format == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unavailable("this CPU has no bf16")
    return openvino, core


def _compiled(
    core: Any, graph: Any, format: Format, threads: int, streams: int, group: int = 0
) -> Any:
    return core.compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _HINTS[format],
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            # Two actors on a node would both be pinned to its first cores.
            "ENABLE_CPU_PINNING": False,
        },
    )


def _graph(openvino: Any, core: Any, network: Network, graphs: Graphs | None) -> Any:
    """The exported network, from the node's folder where it is kept there."""
    if graphs is None:
        return _export(network)
    name = digest([_GRAPH, openvino.__version__, graphs.fingerprint, network.read])
    kept = graphs.folder / name
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(kept.parent, os.W_OK):  # then each process has one of its own
        return _export(network)
    with FileLock(f"{kept}.lock"):
        if not _is_whole(kept):
            shutil.rmtree(kept, ignore_errors=True)
            staged = Path(tempfile.mkdtemp(dir=kept.parent, prefix=f".{name}-"))
            try:
                openvino.save_model(_export(network), staged / _FILES[0], compress_to_fp16=False)
                sizes = [(staged / file).stat().st_size for file in _FILES]
                (staged / _SIZES).write_text(json.dumps(sizes), encoding="ascii")
                staged.rename(kept)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
    return core.read_model(kept / _FILES[0])


def _is_whole(kept: Path) -> bool:
    """Whether a kept network has the sizes it was written with; its logits are checked later."""
    try:
        sizes = json.loads((kept / _SIZES).read_text(encoding="ascii"))
        return bool(sizes == [(kept / file).stat().st_size for file in _FILES])
    except (OSError, ValueError):
        return False


def _use_int8_weights(graph: Any) -> int:
    """Replace the weights of every linear layer by int8 ones with a scale for each output.

    What they are multiplied with is quantised while the network runs, so nothing has to be
    calibrated; the result is how many of those numbers may share a scale.
    """
    from openvino import opset13 as op

    inputs = 0
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        source = node.input_value(1).get_node()
        if source.get_type_name() != "Constant" or not node.get_attributes()["transpose_b"]:
            continue
        weights = source.data
        scale = np.maximum(np.abs(weights).max(axis=1, keepdims=True), 1e-12) / 127
        small = op.constant(np.round(weights / scale).astype(np.int8))
        whole = op.multiply(op.convert(small, "f32"), op.constant(scale.astype(np.float32)))
        node.input(1).replace_source_output(whole.output(0))
        inputs = math.gcd(inputs, weights.shape[1])
    return next((group for group in _GROUPS if inputs % group == 0), 0)


def _export(network: Network) -> Any:
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    whole = torch.ones(2, 16, dtype=torch.long)
    example = (whole, torch.zeros_like(whole), torch.arange(16).repeat(2, 1))
    with torch.no_grad():
        decoder = TorchScriptPythonDecoder(network.float().eval(), example_input=example)
    frontend = FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))
