"""Presses of kvpress 0.5.5 that take no part in the comparison, and why."""

NOT_RUN = {
    "CAMPress": "evicts while decoding; nothing is cut when a context has been read",
    "ChunkPress": "its chunks of 1024 tokens are the whole context here: the press inside it",
    "CompressionRatioDecodingPress": "evicts while decoding only",
    "DMSPress": "keeps by a threshold, meant for the trained scores of KVzap, not by a share",
    "DecodingPress": "evicts while decoding only",
    "FastKVzipPress": "needs gates trained for a model; none are published for this one",
    "FinchPress": "chooses by the question, which is unknown here when the context is cut",
    "KVzapPress": "needs a surrogate trained for a model; none is published for this one",
    "LUKVPress": "needs curves published for a model; those of one model exist",
    "PerLayerCompressionPress": "takes a list of shares by hand and chooses none itself",
    "PrefillDecodingPress": "a press for reading, which is here by itself, and one for decoding",
    "QFilterPress": "needs filters published for a model; none are for this one",
    "RestoreKVPress": "needs adapters trained for a model; none are published for this one",
    "SimLayerKVPress": "takes a threshold, not a share; its 1024 recent tokens are the context",
    "ThinKPress": "drops channels of keys only: half of the bytes would be all of the keys; it is "
    "run behind SnapKV instead",
}
