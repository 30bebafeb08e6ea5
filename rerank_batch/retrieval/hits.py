"""What a search gives back; knows neither FAISS nor BM25."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hits:
    """``scores`` float32 [n, k] and ``documents`` int64 [n, k], best first, padded with -1."""

    scores: NDArray[np.float32]
    documents: NDArray[np.int64]
