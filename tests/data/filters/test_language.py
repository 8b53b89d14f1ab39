"""Language identification from the model inside the wheel."""

import importlib.util

import pyarrow as pa
import pytest

from raysl.data.filters.language import Language
from raysl.errors import ConfigError

TEXTS = [
    "This is a plain English sentence about cats and dogs that live in a house.",
    "Dies ist ein deutscher Satz über Katzen und Hunde, die in einem Haus leben.",
    "Ceci est une phrase française sur les chats et les chiens.",
    "これは猫についての日本語の文章です。",
    "1 2 3 4 5 6",
]


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if "monkeypatch" not in request.fixturenames:
        pytest.importorskip("py3langid")


def kept(**config: object) -> list[list[bool]]:
    keep = Language(Language.Config(**config)).keep(pa.table({"text": TEXTS}))
    return [keep["language"].tolist(), keep["language_unsure"].tolist()]


def test_only_the_languages_asked_for_stay() -> None:
    assert kept()[0] == [True, False, False, False, False]
    assert kept(languages=["de", "ja"])[0] == [False, True, False, True, False]


def test_what_is_unsure_has_a_reason_of_its_own() -> None:
    assert kept(min_confidence=0.8)[1] == [True, True, True, True, False]


def test_only_the_begin_is_looked_at() -> None:
    text = TEXTS[0] + " " + TEXTS[1] * 10
    keep = Language(Language.Config(max_chars=60)).keep(pa.table({"text": [text]}))
    assert keep["language"].tolist() == [True]


def test_unknown_languages_are_refused() -> None:
    with pytest.raises(ConfigError, match="Unknown languages english"):
        Language(Language.Config(languages=["english"]))


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package py3langid. Install it: pip install 'raysl\[language\]'"):
        Language(Language.Config())
