"""How far a run is while it works: counted where the work is done, sent, summed where it is shown.

Nothing of it is kept with the run or changes what it makes. Knows neither Ray nor a terminal.
"""

from rerank_batch.progress.messages import CallReport, ProgressSender
from rerank_batch.progress.sums import Place, Progress, Snapshot, StageProgress

__all__ = ["CallReport", "Place", "Progress", "ProgressSender", "Snapshot", "StageProgress"]
