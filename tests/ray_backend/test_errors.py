"""How failures look once they have left Ray."""

import pytest
from ray.exceptions import RayTaskError

from rerank_batch.errors import StorageError
from rerank_batch.ray_backend.errors import clear_errors


def test_an_error_of_ours_comes_out_of_ray_as_it_was_raised():
    """Ray's error of a task is of our class as well, with a worker's whole stack for a message."""
    raised = StorageError("the bucket does not exist")
    task = RayTaskError("task", "a stack\nof many\nlines", raised).as_instanceof_cause()
    assert isinstance(task, StorageError)
    with pytest.raises(StorageError) as error, clear_errors():
        raise task
    assert error.value is raised
