"""A click log as a source of labels: what was shown where and whether it was clicked.

Clicks are no judgements. They depend on where a document stood, which is corrected by a stated
model of how positions are looked at, and on more, which is not; see `labels.LIMITS`.
"""

from rerank_batch.data.clicks.grades import LIMITS, ClickFacts, ClickLabels, read_clicks
from rerank_batch.data.clicks.log import SUFFIXES

__all__ = ["LIMITS", "SUFFIXES", "ClickFacts", "ClickLabels", "read_clicks"]
