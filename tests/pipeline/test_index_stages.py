"""Vectors between the stages of an index build."""

import numpy as np
import pyarrow as pa

from rerank_batch.pipeline.index_stages import read_vectors, write_vectors
from rerank_batch.storage import open_root


def test_vectors_are_read_back_across_the_borders_of_their_blocks(tmp_path):
    root = open_root(str(tmp_path))
    vectors = np.arange(40, dtype=np.float32).reshape(10, 4)
    for start, stop in ((0, 3), (3, 7), (7, 10)):
        flat = pa.array(vectors[start:stop].tolist(), pa.list_(pa.float32()))
        write_vectors(root, "build", pa.table({"document": range(start, stop), "vector": flat}))
    np.testing.assert_array_equal(read_vectors(root, "build", 2, 9), vectors[2:9])
