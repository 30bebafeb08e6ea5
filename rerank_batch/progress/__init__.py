"""How far a run is while it works: counted where the work is done, told, summed where it is shown.

Nothing of it is kept with the run or changes what it makes. Knows neither Ray nor a terminal.
"""

from rerank_batch.progress.sums import Line, Place, Progress, Whole
from rerank_batch.progress.told import Part, Teller

__all__ = ["Line", "Part", "Place", "Progress", "Teller", "Whole"]
