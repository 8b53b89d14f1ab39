"""Column names and Arrow types of rows as they travel between stages."""

import pyarrow as pa

ID = "id"
TEXT = "text"
LABEL = "label"
SPLIT = "split"
CLUSTER = "cluster"
TOKENS, TITLE_TOKENS = "tokens", "title_tokens"
PIXELS = "pixels"
ENCODED = "encoded"
USER, ITEM, TIME, GROUP = "user", "item", "time", "group"

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Ids 0 to 4 of every vocabulary."""
UNKNOWN, SEPARATOR = SPECIAL_TOKENS.index("[UNK]"), SPECIAL_TOKENS.index("[SEP]")

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

RAW_DOCUMENT = pa.schema([(ID, pa.string()), (TEXT, pa.string()), (LABEL, pa.string())])
"""What a text source yields: `id` unique in the source, `label` null where there is none. A source whose config names a
`title_column` puts the title into the first line of `text`, which is blank where there is none."""

HAS_TITLE = "has_title"
"""Beside the columns of a clean row where its source has titles."""

DOCUMENT = pa.schema(
    [(ID, pa.string()), (TEXT, pa.string()), (LABEL, pa.string()), (CLUSTER, pa.int64()), (SPLIT, pa.string())]
)
"""A prepared document: `cluster` is the row number of the first document of its near-duplicate cluster."""

TOKENIZED = pa.schema([(ID, pa.string()), (LABEL, pa.string()), (TOKENS, pa.list_(pa.int32()))])
"""A row of a token shard (Arrow IPC, one record batch): its values buffer read end to end is the packed text."""

TITLED = TOKENIZED.append(pa.field(TITLE_TOKENS, pa.int32()))
"""The same where documents have titles: how many of the tokens, from the first on, are the title's; 0: it has none."""

REMOVED = pa.schema([(ID, pa.string()), ("reason", pa.string()), ("kept_id", pa.string()), ("jaccard", pa.float64())])
"""A row of removed.parquet: why a document went, and for duplicates which kept document stands for it."""

REMOVED_IMAGE = pa.schema([(ID, pa.string()), ("reason", pa.string()), ("kept_id", pa.string()), ("distance", pa.int64())])
"""The same for pictures: `distance` is how many of the 64 bits of the hashes differ."""

IMAGE = pa.schema([(ID, pa.string()), (LABEL, pa.string()), (CLUSTER, pa.int64()), (SPLIT, pa.string())])
"""A prepared picture; its pixels stand in the shards of its split, in the same order."""

EVENT = pa.schema([(USER, pa.string()), (ITEM, pa.string()), (TIME, pa.int64()), (GROUP, pa.string()), (TEXT, pa.string())])
"""What an event source yields: `time` in microseconds since 1970 (UTC), `group` and `text` null where there is none."""

ORDERED = pa.schema([(USER, pa.string()), (ITEM, pa.string()), (TIME, pa.int64()), (GROUP, pa.int32()), (TEXT, pa.string())])
"""Events by user and time; `group` numbers the groups of each user from 0."""

CATALOGUE = pa.schema([(ITEM, pa.string()), ("token", pa.int32()), (TEXT, pa.string()), ("count", pa.int64())])
"""A row of items.parquet: `token` is [UNK] for an item outside the vocabulary, `count` are its events in tokens/train."""

HELD_OUT = pa.schema(
    [
        (USER, pa.string()),
        (SPLIT, pa.string()),
        ("context", pa.list_(pa.int32())),
        ("target", pa.list_(pa.int32())),
        ("target_items", pa.list_(pa.string())),
        ("target_times", pa.list_(pa.timestamp("us"))),
        ("target_groups", pa.list_(pa.int32())),
    ]
)
"""A row of held_out/: what a user did before a split begins (tokens) and did in it; `target_groups` numbers the groups."""
