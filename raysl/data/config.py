"""Settings of `prepare`. Sources and filters carry their own Config beside their code."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from raysl.config import AnyFilter, AnySource, Config


class DeduplicateConfig(Config):
    """Exact and near-duplicate removal (MinHash, Broder 1997; banding, Leskovec et al. ch. 3)."""

    threshold: float = Field(0.8, gt=0, le=1)
    """Jaccard index of word shingles from which a document counts as a duplicate of a kept one."""
    ngram: int = Field(5, ge=1, le=20)
    """Words in one shingle."""
    num_bands: int | None = Field(None, ge=1, le=1000)
    """Bands of the signature: more find more of the pairs near the threshold. Default: what fits the threshold best."""
    rows_per_band: int | None = Field(None, ge=1, le=100)
    """Permutations in a band: more leave fewer candidates to check. Default: what fits the threshold best."""

    @model_validator(mode="after")
    def _both_or_none(self) -> "DeduplicateConfig":
        if (self.num_bands is None) != (self.rows_per_band is None):
            raise ValueError("give both num_bands and rows_per_band, or neither")
        return self


class TokenizerConfig(Config):
    """A subword vocabulary trained on the train split, or one that is there already."""

    path: str | None = None
    """A tokenizer.json to use instead of training one (for `pretrain.init_from`); the other keys then stay as they are."""
    type: str = Field("bpe", pattern="^(bpe|wordpiece)$")
    """`bpe` (byte-level, no unknown tokens) or `wordpiece`."""
    vocab_size: int = Field(16000, ge=300)
    """Entries, special tokens included."""
    lowercase: bool = True
    """Whether case is dropped; generation wants it kept."""
    max_training_mb: float = Field(30.0, gt=0)
    """Text the vocabulary is trained on at most, in MB."""

    @model_validator(mode="after")
    def _given_or_trained(self) -> "TokenizerConfig":
        fields = type(self).model_fields
        set_too = [n for n in fields if n != "path" and getattr(self, n) != fields[n].default]
        if self.path is not None and set_too:
            raise ValueError(f"path takes a tokenizer as it is, so {', '.join(set_too)} would have no effect; leave it out")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A path that is absent leaves no mark, so that runs made before the key existed are still known as done."""
        return {key: value for key, value in handler(self).items() if value is not None}


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


class PrepareConfig(Config):
    """Raw text to clean, de-duplicated, tokenized shards."""

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
    split: SplitConfig = SplitConfig()
    partition_mb: float = Field(2.0, gt=0)
    """Raw text in one partition, in MB: the unit of parallel work and of restart."""
    max_bad_share: float = Field(0.5, gt=0, le=1)
    """Share of unreadable rows from which the source itself is refused."""

    @model_serializer(mode="wrap")
    def _leave_out_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A section that is absent leaves no mark, so that runs made before it existed are still known as done."""
        return {key: value for key, value in handler(self).items() if value is not None}
