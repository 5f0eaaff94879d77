"""All claims, in the order of the page."""

from .claim import Claim
from .papers import (
    a2sf,
    ada_kv,
    baklava,
    corm,
    keyformer,
    kvzip,
    pyramid_kv,
    razor_attention,
    squeeze_attention,
)

CLAIMS: tuple[Claim, ...] = (
    baklava.CLAIM,
    keyformer.CLAIM,
    squeeze_attention.CLAIM,
    pyramid_kv.CLAIM,
    ada_kv.CLAIM,
    razor_attention.CLAIM,
    corm.CLAIM,
    a2sf.CLAIM,
    kvzip.CLAIM,
)
