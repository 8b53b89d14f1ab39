"""Settings of `prepare`. Sources and filters carry their own Config beside their code."""

import re
from datetime import UTC, datetime
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from raysl.config import AnyFilter, AnyPath, AnySource, Config


class DeduplicateConfig(Config):
    """Exact and near-duplicate removal (MinHash, Broder 1997; banding, Leskovec et al. ch. 3)."""

    limits: ClassVar[frozenset[str]] = frozenset({"max_task_mb"})

    threshold: float = Field(0.8, gt=0, le=1)
    """Jaccard index of word shingles from which a document counts as a duplicate of a kept one."""
    ngram: int = Field(5, ge=1, le=20)
    """Words in one shingle."""
    num_bands: int | None = Field(None, ge=1, le=1000)
    """Bands of the signature: more find more of the pairs near the threshold. Default: what fits the threshold best."""
    rows_per_band: int | None = Field(None, ge=1, le=100)
    """Permutations in a band: more leave fewer candidates to check. Default: what fits the threshold best."""

    max_task_mb: float = Field(1000.0, gt=0)
    """Memory of the largest task that compares documents, in MB beside what Python and Arrow take (about 200). One task
    groups the keys of all documents while that fits (200 bytes each: 5 million in 1,000 MB), many tasks do beyond."""

    @model_validator(mode="after")
    def _both_or_none(self) -> "DeduplicateConfig":
        if (self.num_bands is None) != (self.rows_per_band is None):
            raise ValueError("give both num_bands and rows_per_band, or neither")
        return self


class TokenizerConfig(Config):
    """A subword vocabulary trained on the train split, or one that is there already."""

    later: ClassVar[frozenset[str]] = frozenset({"path"})

    path: AnyPath | None = None
    """A tokenizer.json to use instead of training one (for `pretrain.init_from`); the other keys then stay as they are."""
    type: Literal["bpe", "wordpiece"] = "bpe"
    """`bpe` (byte-level, no unknown tokens) or `wordpiece`."""
    vocab_size: int = Field(16000, ge=300)
    """Entries, special tokens included."""
    lowercase: bool = True
    """Whether case is dropped; generation wants it kept."""
    max_training_mb: float = Field(30.0, gt=0)
    """Text the vocabulary is trained on, in MB: about as much, drawn at random, where the train split holds more."""

    @model_validator(mode="after")
    def _given_or_trained(self) -> "TokenizerConfig":
        fields = type(self).model_fields
        set_too = [n for n in fields if n != "path" and getattr(self, n) != fields[n].default]
        if self.path is not None and set_too:
            raise ValueError(f"path takes a tokenizer as it is, so {', '.join(set_too)} would have no effect; leave it out")
        return self


class SplitConfig(Config):
    """Shares of near-duplicate clusters held out, drawn by a hash of the cluster's first document."""

    validation: float = Field(0.05, ge=0, lt=1)
    """Share for losses and choices while training."""
    test: float = Field(0.15, ge=0, lt=1)
    """Share that only `evaluate` reads."""

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> "SplitConfig":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation + test must stay below 1, got {self.validation + self.test}")
        return self


class RedactConfig(Config):
    """Personal data to be replaced by a placeholder."""

    kinds: tuple[Literal["email", "iban", "card", "ip", "phone"], ...] = ("email", "iban", "card", "ip", "phone")
    """What is replaced. Cards are proved by Luhn, IBANs by their check digits, addresses by being public."""


class DecontaminateConfig(Config):
    """Removal of documents that share a long run of words with an evaluation set (Brown et al., 2020, appendix C)."""

    source: AnySource
    """The evaluation set: any source, read as documents are."""
    ngram: int = Field(13, ge=2, le=50)
    """Words in a row that have to be the same."""

    @model_validator(mode="after")
    def _holds_text(self) -> "DecontaminateConfig":
        if self.source.modality != "text":
            raise ValueError(f"an evaluation set is text, but the source '{self.source.type}' yields {self.source.modality}")
        return self


class ImagesConfig(Config):
    """Pictures: checks, near-duplicate removal by perceptual hash, and the size in which they are stored."""

    size: int = Field(64, ge=4, le=1024)
    """Pixels along each side of a prepared picture."""
    channels: Literal[1, 3] = 3
    """1 (grey) or 3 (RGB)."""
    patch_size: int | None = Field(None, ge=1)
    """Pixels along each side of a patch; divides `size`. Default: the whole picture is one patch."""
    resize: Literal["crop", "pad", "stretch"] = "crop"
    """How a picture becomes a square: its middle, all of it on black, or squeezed."""
    store: Literal["pixels", "encoded"] = "pixels"
    """What shards hold: pixels, ready to be read; or the pictures as they were found, smaller, decoded while training."""
    max_pixels: int = Field(50_000_000, ge=1, le=89_478_485)
    """Pixels of a whole picture, at most: a larger one is refused by its header."""
    min_side: int = Field(1, ge=1)
    """Pixels that the shorter side needs."""
    max_aspect: float | None = Field(None, ge=1)
    """Longer side by the shorter one, at most; absent: any."""
    min_contrast: float = Field(0.0, ge=0, le=127)
    """Standard deviation of the grey values (0 to 255) that a picture needs; 2 drops blank ones."""
    min_sharpness: float = Field(0.0, ge=0)
    """Variance of the Laplacian, at 256 pixels on the longer side, that a picture needs; 50 drops badly blurred photos."""
    max_distance: int | None = Field(2, ge=0, le=10)
    """Bits of the 64-bit perceptual hash in which near-duplicates differ at most; null removes only equal pictures."""

    @model_validator(mode="after")
    def _whole_patches(self) -> "ImagesConfig":
        if self.patch_size is not None and self.size % self.patch_size:
            raise ValueError(f"patch_size must divide size, got size {self.size} and patch_size {self.patch_size}")
        return self


MODALITY_KEYS = {
    "text": ("redact", "filters", "decontaminate", "deduplicate", "tokenizer", "split"),
    "images": ("images", "split"),
    "interactions": ("behaviour",),
}
"""Modality of the source -> keys of `prepare:` that mean something for it; the other keys of `prepare:` are for all."""


class TimeSplitConfig(Config):
    """Two cuts in time. Train is what came before the first, validation what came before the second, test the rest."""

    validation_from: datetime | None = None
    """First cut; a time without a zone is UTC. Absent: drawn from the shares."""
    test_from: datetime | None = None
    """Second cut."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the events between the cuts, where none are given; cuts fall on midnight (on the hour within 100 days)."""
    test: float = Field(0.1, ge=0, lt=1)
    """Share of the events after the second cut."""

    @field_validator("validation_from", "test_from")
    @classmethod
    def _in_utc(cls, time: datetime | None) -> datetime | None:
        return time if time is None or time.tzinfo else time.replace(tzinfo=UTC)

    @model_validator(mode="after")
    def _in_order(self) -> "TimeSplitConfig":
        if (self.validation_from is None) != (self.test_from is None):
            raise ValueError("give both validation_from and test_from, or neither")
        if self.validation + self.test >= 1:
            raise ValueError(f"validation + test must stay below 1, got {self.validation + self.test}")
        if self.cuts and self.cuts[0] > self.cuts[1]:
            raise ValueError(f"test_from must not lie before validation_from, got {self.test_from}")
        fields = type(self).model_fields
        shares = [name for name in ("validation", "test") if getattr(self, name) != fields[name].default]
        if self.cuts and shares:
            raise ValueError(f"the cuts are given as times, so {' and '.join(shares)} would have no effect; leave it out")
        return self

    @property
    def cuts(self) -> tuple[datetime, datetime] | None:
        """Where times are given."""
        if self.validation_from is None or self.test_from is None:
            return None
        return self.validation_from, self.test_from


class BehaviourConfig(Config):
    """Events to item sequences, one a user. Only for a source of interactions."""

    min_user_events: int = Field(5, ge=2)
    """Train events a user needs to be trained on; a sequence of one predicts nothing."""
    min_item_events: int = Field(5, ge=1)
    """Train events an item needs to have a token of its own; the others are [UNK]."""
    split: TimeSplitConfig = TimeSplitConfig()


class PrepareConfig(Config):
    """Raw data to clean, de-duplicated shards of fixed width."""

    how: ClassVar[frozenset[str]] = frozenset({"copy_to"})
    limits: ClassVar[frozenset[str]] = frozenset({"max_bad_share"})
    later: ClassVar[frozenset[str]] = frozenset({"redact", "decontaminate", "images", "behaviour", "copy_to"})

    source: AnySource
    """Where the documents come from."""
    redact: RedactConfig | None = None
    """Replaces personal data in every text, before the filters; absent: texts stay as they are."""
    filters: tuple[AnyFilter, ...] = ()
    """Tests that every document has to pass, in this order."""
    decontaminate: DecontaminateConfig | None = None
    """Removes what shares text with an evaluation set, after the filters; absent: nothing is compared."""
    deduplicate: DeduplicateConfig = DeduplicateConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    images: ImagesConfig | None = None
    """How pictures are checked, compared and stored, where the source yields pictures."""
    split: SplitConfig = SplitConfig()
    behaviour: BehaviourConfig | None = None
    """How events become sequences; absent: the defaults."""
    partition_mb: float = Field(2.0, gt=0)
    """Raw data in one partition, in MB: the unit of parallel work and of restart."""
    max_bad_share: float = Field(0.5, gt=0, le=1)
    """Share of unreadable rows from which the source itself is refused."""
    copy_to: str | None = None
    """Folder of an object store (s3://bucket/folder, gs://...) that the outputs are copied to; null: they are not copied."""

    @field_validator("copy_to")
    @classmethod
    def _in_a_store(cls, uri: str | None) -> str | None:
        if uri is not None and not re.fullmatch(r"(s3|gs)://[^/]+/.+", uri):
            raise ValueError(f"give s3://bucket/folder or gs://bucket/folder, got {uri!r}")
        return uri

    @model_validator(mode="after")
    def _keys_of_its_modality(self) -> "PrepareConfig":
        """A key that the source has no use for is a mistake, not a key that is read by nobody."""
        wrong = [
            key for key in sorted(self._keys_of_others()) if key in self.model_fields_set and getattr(self, key) is not None
        ]
        if wrong:
            raise ValueError(
                f"`{wrong[0]}` is not for {self.source.modality}, which source '{self.source.type}' yields; leave it out. "
                f"Keys for {self.source.modality}: {', '.join(MODALITY_KEYS.get(self.source.modality, ()))}"
            )
        return self

    @property
    def yields_titles(self) -> bool:
        """Whether the source has titles."""
        return getattr(self.source, "title_column", None) is not None

    def _keys_of_others(self) -> set[str]:
        return {key for keys in MODALITY_KEYS.values() for key in keys} - set(MODALITY_KEYS.get(self.source.modality, ()))

    def _unmarked(self) -> set[str]:
        return super()._unmarked() | self._keys_of_others()
