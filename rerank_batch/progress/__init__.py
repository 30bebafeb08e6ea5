"""How far a run is while it works: counted where the work is done, sent, summed where it is shown.

Nothing of it is kept with the run or changes what it makes. Knows neither Ray nor a terminal.
"""

from rerank_batch.progress.messages import Part, ProgressSender
from rerank_batch.progress.sums import Line, Place, Progress, Whole

__all__ = ["Line", "Part", "Place", "Progress", "ProgressSender", "Whole"]
