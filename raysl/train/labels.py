"""Labelled rows for the kNN probe: of a source that the config names, or of the validation split that `prepare` made."""

from raysl.config import PluginConfig
from raysl.data.pixels import PixelRows
from raysl.data.prepared import PIXELS, TOKENIZER, TOKENS, Prepared
from raysl.data.shards import TokenRows
from raysl.errors import DataError
from raysl.objectives.base import Objective
from raysl.run_config import RunConfig
from raysl.schema import VALIDATION
from raysl.train.inputs import tokenize
from raysl.train.probe import LabelledRows, choose

MAX_TOKENS = 256
"""Tokens of a document that the probe reads: a few long documents would cost more than all others."""


def labelled_rows(config: RunConfig, prepared: Prepared, objective: Objective) -> LabelledRows | None:
    """What the probe reads; None where the config has no probe, or names no source and `prepare` found no labels."""
    settings = config.training.probe
    if settings is None:
        return None
    if settings.source is not None:
        return _of_source(config, settings.source, prepared, objective)
    if objective.row_kind == "pixels":
        rows: PixelRows | TokenRows = PixelRows(prepared.shards(PIXELS, VALIDATION))
    else:
        rows = TokenRows(prepared.shards(TOKENS, VALIDATION), "documents", objective.row_length)
    cut = MAX_TOKENS if objective.unit == "tokens" else None
    return choose(lambda place: rows.row(place)[:cut], rows.labels, settings.max_rows)


def _of_source(config: RunConfig, source: PluginConfig, prepared: Prepared, objective: Objective) -> LabelledRows:
    from raysl.data.additions import as_prepared, read_source

    table, _ = read_source(source, config.prepare.partition_mb)
    tokenizer = prepared.file(TOKENIZER)
    texts, labels = as_prepared(table["text"], config.prepare).to_pylist(), table["label"].to_pylist()
    settings = config.training.probe
    assert settings is not None
    found = choose(texts.__getitem__, labels, settings.max_rows)
    if found is None:
        raise DataError(
            "pretrain.probe.source needs two labels or more with two rows each. Set its label_column, or leave the source "
            "out to use the labels of the validation split."
        )
    return LabelledRows(tokenize(tokenizer, list(found.rows), MAX_TOKENS), found.targets)
