"""The architectures whose forward pass is known here, by their classes in transformers."""

from collections.abc import Callable
from typing import Any

from torch import nn

from rerank_batch.scoring.networks import bert, modern_bert
from rerank_batch.scoring.networks.body import Body, Read

BODIES: dict[str, Callable[[Any], Body]] = {
    "BertModel": bert.body,
    "RobertaModel": bert.body,
    "XLMRobertaModel": bert.body,
    "ModernBertModel": modern_bert.body,
}
"""Of a model without a head."""

HEADS: dict[str, Callable[[Any], tuple[Read, nn.Module]]] = {
    "BertForSequenceClassification": bert.bert_head,
    "RobertaForSequenceClassification": bert.roberta_head,
    "XLMRobertaForSequenceClassification": bert.roberta_head,
    "ModernBertForSequenceClassification": modern_bert.head,
}
"""Of a sequence classifier, and what it reads."""
