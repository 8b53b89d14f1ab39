"""Column names and Arrow types of rows as they travel between stages."""

import pyarrow as pa

ID = "id"
TEXT = "text"
LABEL = "label"
SPLIT = "split"
CLUSTER = "cluster"
TOKENS = "tokens"
PIXELS = "pixels"
ENCODED = "encoded"

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

RAW_DOCUMENT = pa.schema([(ID, pa.string()), (TEXT, pa.string()), (LABEL, pa.string())])
"""What a text source yields: `id` unique in the source, `label` null where there is none."""

DOCUMENT = pa.schema(
    [(ID, pa.string()), (TEXT, pa.string()), (LABEL, pa.string()), (CLUSTER, pa.int64()), (SPLIT, pa.string())]
)
"""A prepared document: `cluster` is the row number of the first document of its near-duplicate cluster."""

TOKENIZED = pa.schema([(ID, pa.string()), (LABEL, pa.string()), (TOKENS, pa.list_(pa.int32()))])
"""A row of a token shard (Arrow IPC, one record batch): its values buffer read end to end is the packed text."""

REMOVED = pa.schema([(ID, pa.string()), ("reason", pa.string()), ("kept_id", pa.string()), ("jaccard", pa.float64())])
"""A row of removed.parquet: why a document went, and for duplicates which kept document stands for it."""
