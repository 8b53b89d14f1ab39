"""`raysl update`: new labelled rows in, a better version out, or none.

gather -> prepare only the new rows -> fine-tune on old and new -> both versions on rows neither has seen -> gate.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysl import schema, storage
from raysl.data.additions import Additions, prepare_additions, read_source
from raysl.data.dedup import deduplicate_against
from raysl.data.labelled import Documents
from raysl.errors import ConfigError, StageError
from raysl.monitor.recorder import read_records
from raysl.progress import say
from raysl.release import model_registry
from raysl.release.build import Ingredients, build_bundle
from raysl.release.bundle import ENCODER, REFERENCE, SEARCH_DOCUMENTS, TOKENIZER, Bundle, open_bundle
from raysl.release.documents import COLUMNS, draw_split, lacking
from raysl.release.gate import Decision, judge
from raysl.release.release import labelled_rows
from raysl.run_config import RunConfig, needed
from raysl.stage import alone, log_metrics, made_from, require, section
from raysl.train.finetune import finetune_rows

FEWEST_OF_A_NEW_CLASS = 5
"""Labelled rows from which a label that the model does not know becomes a class of it."""
OLD_TEST_ROWS = 5000
"""Labelled documents of the old test split that the gate reads at most."""
ADDED_ROWS, REFUSED = "added.parquet", "refused.json"
HELD_OUT, FROM_SERVICE = "held_out", "from_service"
ADDED = pa.schema([*schema.RAW_DOCUMENT, (HELD_OUT, pa.bool_()), (FROM_SERVICE, pa.bool_())])
"""A row that an update added: whether only the gate has read it, and whether it is somebody's request."""


@dataclass(frozen=True)
class UpdateResult:
    """What came of one update. Without `decision` there were too few new rows to make a version of."""

    gathered: Mapping[str, int]
    """Rows by where they came from."""
    dropped: Mapping[str, int]
    """Rows that went, by reason."""
    kept: int
    production: int
    """The version that was in production before."""
    judged: int = 0
    """Kept rows that a version was made of which lost against this production with these settings: they are no news."""
    judged_in: int | None = None
    """That version."""
    version: int | None = None
    """The version made, whether it was promoted or archived."""
    decision: Decision | None = None
    overtaken_by: int | None = None
    """A version that went into production while this one was made; then this one is archived."""

    @property
    def promoted(self) -> bool:
        return self.decision is not None and self.decision.accepted and self.overtaken_by is None


def update(config: RunConfig) -> UpdateResult:
    """Makes the next version from requests that got feedback and the rows of `update.source`.

    It goes into production only if it gains `min_gain` on all held-out rows and loses at most `max_loss_on_old` on the
    old ones; else it stays in the registry, archived, with the reason. A running service takes a promoted version over.
    """
    if config.prepare.source.modality != "text":
        raise ConfigError(
            f"`raysl update` learns from recorded texts, and this run reads {config.prepare.source.modality}, which are not "
            "recorded. Put new labelled rows beside those of prepare.source and make another run of them (run_dir=...)."
        )
    needed(config, "finetune")
    needed(config, "release")
    made_from(config.folder, ("prepare", "pretrain", "finetune", "release"), config.free_stages)
    with alone(config.folder / "update"):  # two would judge against the same production
        return _update(config)


def _update(config: RunConfig) -> UpdateResult:
    number, folder = model_registry.production(config.folder)
    production = open_bundle(folder)
    _check_encoder(config, number, production)
    gathered, rows, dropped = gather(config)
    before = added_rows(config.folder)
    additions = prepare_additions(rows, before.select(list(COLUMNS)), config.folder / "prepare/dedup_index", config.prepare)
    additions = drop_rare_classes(additions, production)
    result = UpdateResult(gathered, _sum(dropped, additions.dropped), len(additions.rows), number)
    result = without_judged(config, production, additions.rows, result)
    if result.kept - result.judged >= config.update.min_new_rows:
        before = without_prepared(before, config.folder / "prepare/dedup_index")
        result = _make_version(config, production, before, split(additions.rows, config), result)
    _keep(config, result)
    return result


def _check_encoder(config: RunConfig, number: int, production: Bundle) -> None:
    """The run's models and the bundle in production have to go together: one is trained on, the other taken over."""
    released = require(config.folder, "release", "release")
    if released.files[f"bundle/{ENCODER}"] != production.manifest["files"][ENCODER]:
        newest = released.counts["version"]
        raise StageError(
            f"Version {number}, in production, has another encoder than version {newest}, the last release of this run; "
            f"an update needs them to be the same. Promote version {newest} (raysl.release.model_registry.promote), "
            "or run `raysl release` with models that are good enough for production first."
        )


def gather(config: RunConfig) -> tuple[dict[str, int], pa.Table, dict[str, int]]:
    """Rows of the service and of `update.source`, their counts, and how many could not be read."""
    records = read_records(config.folder, where=pc.field("task") == "classify")
    records = records.filter(pc.is_valid(records[schema.LABEL]))
    served = pa.table([records["request_id"], records[schema.TEXT], records[schema.LABEL]], schema=schema.RAW_DOCUMENT)
    gathered, bad = {"feedback": len(served)}, dict[str, int]()
    tables = [_marked(served, "request")]
    if config.update.source is not None:
        fresh, bad = read_source(config.update.source, config.prepare.partition_mb)
        gathered["source"] = len(fresh) + sum(bad.values())
        tables.append(_marked(fresh, "source"))
    return gathered, pa.concat_tables(tables), bad


def _marked(rows: pa.Table, mark: str) -> pa.Table:
    """Ids that say where a row is from, unique beside those of other places."""
    ids = [f"{mark}:{place}:{name}" for place, name in enumerate(rows[schema.ID].to_pylist())]
    return rows.set_column(0, schema.ID, pa.array(ids, pa.string()))


def drop_rare_classes(additions: Additions, production: Bundle) -> Additions:
    """Without labels that the model does not know and that too few rows have."""
    labels = additions.rows[schema.LABEL].to_pylist()
    counts, known = Counter(labels), set(production.classes)
    keep = [label in known or counts[label] >= FEWEST_OF_A_NEW_CLASS for label in labels]
    dropped = {"rare_new_class": len(keep) - sum(keep)} if not all(keep) else {}
    return Additions(additions.rows.filter(pa.array(keep, pa.bool_())), _sum(additions.dropped, dropped))


def without_judged(config: RunConfig, production: Bundle, rows: pa.Table, result: UpdateResult) -> UpdateResult:
    """Counts the rows that the last refused version had, if nothing else has changed: it would be refused again."""
    for version in reversed(model_registry.read_registry(config.folder).versions):
        folder = config.folder / "update" / str(version.version)
        if not (folder / REFUSED).is_file() or storage.read_json(folder / REFUSED) != judged_as(config, production):
            continue
        had = set(_pairs(pq.read_table(folder / ADDED_ROWS)))
        return replace(result, judged=sum(pair in had for pair in _pairs(rows)), judged_in=version.version)
    return result


def judged_as(config: RunConfig, production: Bundle) -> dict[str, str]:
    """What a decision depends on besides the rows."""
    settings = section(config, "seed", "finetune", "release", "update")
    settings["update"] = {name: value for name, value in settings["update"].items() if name != "source"}
    return {"production": production.content_hash, "settings": storage.hash_json(settings)}


def _pairs(rows: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(rows[schema.TEXT].to_pylist(), rows[schema.LABEL].to_pylist(), strict=True)


def split(rows: pa.Table, config: RunConfig) -> pa.Table:
    """Rows of ADDED; what is held out is drawn by a hash of the text, and of each class at least one row is trained on."""
    held_out = []
    trained: set[str] = set()
    for text, label in _pairs(rows):
        draw = int(storage.hash_text(f"{config.seed}:{text}")[:12], 16) / 16**12
        held_out.append(draw < config.update.held_out_share and label in trained)
        trained.add(label)
    served = [name.startswith("request:") for name in rows[schema.ID].to_pylist()]
    return pa.table([*rows.columns, pa.array(held_out, pa.bool_()), pa.array(served, pa.bool_())], schema=ADDED)


def added_rows(run_folder: Path) -> pa.Table:
    """Rows (ADDED) of the updates whose version was promoted, also where it was rolled back later."""
    changes = model_registry.read_registry(run_folder).changes
    promoted = sorted({change.version for change in changes if change.after == model_registry.PRODUCTION})
    paths = [run_folder / "update" / str(version) / ADDED_ROWS for version in promoted]
    return pa.concat_tables([ADDED.empty_table(), *(pq.read_table(path) for path in paths if path.is_file())])


def without_prepared(rows: pa.Table, index_folder: Path) -> pa.Table:
    """Rows of earlier updates but those near a document of `prepare`: made anew, it may have put them in its test split."""
    new = deduplicate_against(index_folder, rows.combine_chunks()).kept
    if len(new) < len(rows):
        say(f"update: left out {len(rows) - len(new):,} rows of earlier updates, near documents that `prepare` has by now")
    return new


def _make_version(
    config: RunConfig, production: Bundle, before: pa.Table, fresh: pa.Table, result: UpdateResult
) -> UpdateResult:
    """Trains on from the pretrained encoder, builds, judges, registers. Killed anywhere and run again it does the same."""
    work = config.folder / "update" / "work"
    storage.remove(work)
    added = pa.concat_tables([before, fresh])
    rows = _rows_to_train_on(config, added)
    # production may know less: rolled back, or released again with fewer classes than earlier rows have
    classes = sorted({*production.classes, *rows[schema.LABEL].to_pylist()})
    documents = Documents(*(rows[name].to_pylist() for name in (schema.ID, schema.LABEL, schema.TEXT)))
    finetune_rows(config, config.folder / "pretrain", documents, work / "finetune", classes, logged_as="update")
    parts = _ingredients(config, production, work / "finetune", added)
    assert config.release is not None
    candidate = build_bundle(work / "bundle", parts, config.release)
    old = _old_rows(config, before)
    decision = judge(production, candidate, old, _held_out(fresh), config.update.min_gain, config.update.max_loss_on_old)
    version = model_registry.register(config.folder, candidate.folder, asdict(decision.candidate), "made by update")
    kept = config.folder / "update" / str(version)
    storage.remove(kept)  # of a start that was killed before its version was registered
    with storage.atomic_path(kept) as temporary:
        temporary.mkdir(parents=True)
        (work / "finetune").rename(temporary / "finetune")
        pq.write_table(fresh, temporary / ADDED_ROWS, compression="zstd")
        if not decision.accepted:
            storage.write_json(temporary / REFUSED, judged_as(config, production))
    result = replace(result, version=version, decision=decision)
    if decision.accepted:
        now = model_registry.promote(config.folder, version, decision.reason, instead_of=result.production)
        result = replace(result, overtaken_by=None if now == version else now)
    else:
        model_registry.archive(config.folder, version, decision.reason)
    storage.remove(work)
    return result


def _rows_to_train_on(config: RunConfig, added: pa.Table) -> pa.Table:
    """The labelled rows of `finetune` and the added ones; the old ones weigh at least as much."""
    fresh = added.filter(pc.invert(added[HELD_OUT]))
    ids = set(storage.read_json(config.folder / "finetune" / "labelled_rows.json")["ids"])
    old = _documents_by_id(config, ids)
    times = max(1, -(-len(fresh) // max(len(old), 1)))
    return pa.concat_tables([*[old] * times, fresh.select(list(COLUMNS))])


def _documents_by_id(config: RunConfig, ids: set[str]) -> pa.Table:
    tables = []
    for path in sorted((config.folder / "prepare" / "documents").glob("part-*.parquet")):
        table = pq.read_table(path, columns=list(COLUMNS))
        tables.append(table.filter(pc.is_in(table[schema.ID], pa.array(sorted(ids), pa.string()))))
    if not tables:
        raise StageError("The documents of `prepare` are gone. Run `raysl prepare` first.")
    return pa.concat_tables(tables)


def _ingredients(config: RunConfig, production: Bundle, classifier: Path, added: pa.Table) -> Ingredients:
    """Production's bundle with another classifier; encoder and tokenizer stay, so known embeddings do too.

    Production may lack rows of earlier updates too: rolled back, or released since. Requests do not go into the search
    index: it would show one user's text to another.
    """
    documents = None
    if production.has(SEARCH_DOCUMENTS):
        known = pq.read_table(production.path(SEARCH_DOCUMENTS))
        public = added.filter(pc.invert(added[FROM_SERVICE])).select(list(COLUMNS))
        documents = pa.concat_tables([known, lacking(known, public)])
    reference = pq.read_table(production.path(REFERENCE), columns=list(COLUMNS))
    held_out = pa.concat_tables([lacking(reference, _held_out(added)), reference])
    return Ingredients(
        encoder=config.folder / "pretrain", classifier=classifier, tokenizer=production.path(TOKENIZER),
        held_out=held_out, labelled=lacking(held_out, labelled_rows(config)), documents=documents,
        redact=config.prepare.redact, previous=production,
    )  # fmt: skip


def _old_rows(config: RunConfig, before: pa.Table) -> pa.Table:
    """Labelled rows of the old test split, and what earlier updates held out."""
    documents = config.folder / "prepare" / "documents"
    old = draw_split(documents, schema.TEST, OLD_TEST_ROWS, config.seed, labelled=True)
    return pa.concat_tables([old, _held_out(before)])


def _held_out(added: pa.Table) -> pa.Table:
    return added.filter(added[HELD_OUT]).select(list(COLUMNS))


def _sum(*counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sum((Counter(count) for count in counts), Counter()))


def _keep(config: RunConfig, result: UpdateResult) -> None:
    folder = config.folder / "update"
    data: dict[str, Any] = {**asdict(result), "promoted": result.promoted}
    storage.write_json(folder / "latest.json", data)
    storage.append_jsonl(folder / "history.jsonl", data)
    if result.decision is not None:
        scores = {f"macro_f1_{name}": value for name, value in asdict(result.decision.candidate).items()}
        log_metrics(config.folder, "update", version=result.version, promoted=result.promoted, **scores)
    for line in table(result, config):
        say(line)


def table(result: UpdateResult, config: RunConfig) -> list[str]:
    """What `raysl update` prints."""
    came = ", ".join(f"{count:,} {name}" for name, count in result.gathered.items())
    lines = [f"update: gathered {came}; kept {result.kept:,}"]
    lines += [f"  dropped {count:,}  {reason}" for reason, count in sorted(result.dropped.items())]
    decision = result.decision
    if decision is None:
        new = f"no update: {result.kept - result.judged:,} new labelled rows, needed are {config.update.min_new_rows:,}"
        known = (
            f"; {result.judged:,} more are those of version {result.judged_in}, which was refused" if result.judged else ""
        )
        return [*lines, new + known]
    lines.append(f"  {'macro-F1':12}  {'old':>6}  {'new':>6}  {'all':>6}")
    for number, scores in ((result.production, decision.production), (result.version, decision.candidate)):
        lines.append(f"  version {number:<4}  {scores.old:6.3f}  {scores.new:6.3f}  {scores.all:6.3f}")
    if result.overtaken_by is not None:
        return [*lines, f"version {result.version} is archived: {model_registry.overtaken(result.overtaken_by)}"]
    answer = "promoted" if decision.accepted else f"archived, version {result.production} stays in production"
    lines.append(f"version {result.version} is {answer}: it {decision.reason}")
    return lines
