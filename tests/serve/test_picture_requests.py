"""Pictures over HTTP: any file that `prepare` reads, in base64; what is wrong with one is said, and none is recorded."""

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import listening
from raw_http import free_port, post

from raysl.catalog import TASKS
from raysl.config import PluginConfig
from raysl.data.decode import Decoding
from raysl.errors import BundleError, ConfigError
from raysl.monitor.recorder import read_records
from raysl.serve.app import ask
from raysl.serve.body import HttpError
from raysl.serve.config import RecordConfig, ServeConfig
from raysl.serve.openapi import document
from raysl.serve.service import Service, Settings, load_tasks
from raysl.serve.session import BundleSession
from raysl.serve.tasks import base
from tests.pixel_shards import file_of
from tests.tiny_bundle import make_picture_bundle

BRIGHT, DARK = np.full((20, 30), 220, np.uint8), np.full((9, 9), 20, np.uint8)


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def encoded(picture: np.ndarray, kind: str = "PNG") -> str:
    return base64.b64encode(file_of(picture, kind)).decode()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("pictures")
    tasks = ("classify", "embed", "search")
    config = ServeConfig(tasks=tasks, port=free_port(), record=RecordConfig(flush_seconds=0.05))
    return Settings("shop", folder / "run", 1, make_picture_bundle(folder / "bundle"), config)


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[Service]:
    with listening(settings) as running:
        yield running


def url(service: Service) -> str:
    return f"http://127.0.0.1:{service.config.port}"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_picture_of_any_kind_and_size_is_classified(service: Service, kind: str) -> None:
    for picture, label in ((BRIGHT, "day"), (DARK, "night")):
        assert ask(url(service), "/v1/classify", {"image": encoded(picture, kind)})["label"] == label


def test_search_finds_the_pictures_that_look_alike(service: Service) -> None:
    found = ask(url(service), "/v1/search", {"image": encoded(DARK), "limit": 1})["documents"]
    assert [(hit["id"], hit["label"], hit["snippet"]) for hit in found] == [("b.png", "night", "")]


def test_every_example_is_answered(service: Service) -> None:
    for name, example in service.examples().items():
        assert ask(url(service), f"/v1/{name}", dict(example))["request_id"]


def test_info_says_what_is_read(service: Service) -> None:
    info = ask(url(service), "/v1/info")
    assert (info["reads"], info["image_size"], info["max_tokens"], info["max_body_bytes"]) == ("image", 4, None, 8 << 20)


def test_openapi_asks_for_a_picture_in_base64(service: Service) -> None:
    schemas = json.loads(document(service))["components"]["schemas"]
    assert schemas["ImageRequest"]["properties"]["image"]["contentEncoding"] == "base64"
    assert schemas["ImageSearchRequest"]["required"] == ["image"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"image": "?"}, ("image", "must be the bytes of a picture file in base64")),
        ({"image": "ä"}, ("image", "must be the bytes of a picture file in base64")),
        ({"image": ""}, ("image", "is no picture that can be read: empty_file")),
        ({"image": base64.b64encode(b"text").decode()}, ("image", "is no picture that can be read: not_an_image")),
        ({"image": encoded(np.zeros((200, 200), np.uint8))}, ("image", "is no picture that can be read: too_many_pixels")),
        ({"image": 3}, ("image", "must be a valid string")),
        ({"text": "cat"}, ("image", "is needed and missing")),
    ],
)
def test_what_is_wrong_with_a_picture_is_said(service: Service, sent: dict[str, Any], said: tuple[str, str]) -> None:
    with pytest.raises(HttpError) as caught:
        asyncio.run(service.ask("embed", body(**sent), "r"))
    assert caught.value.status == 422
    assert said in caught.value.errors


def test_a_picture_cut_off_is_refused(service: Service) -> None:
    cut = base64.b64encode(file_of(BRIGHT)[:-20]).decode()
    with pytest.raises(HttpError) as caught:
        asyncio.run(service.ask("classify", body(image=cut), "r"))
    assert caught.value.errors == [("image", "is no picture that can be read: broken_image")]


def test_a_photo_may_be_larger_than_any_text(service: Service) -> None:
    padded = body(image=encoded(DARK)) + b" " * 1_000_000
    assert post(service.config.port, "/v1/classify", padded)[0] == 200


@pytest.mark.parametrize("task", ["classify", "embed"])
def test_what_is_recorded_of_a_picture_is_its_embedding(settings: Settings, tmp_path: Path, task: str) -> None:
    run = Settings(settings.name, tmp_path, 1, settings.bundle_folder, settings.config)
    service = Service(run, "writer")
    asyncio.run(service.ask(task, body(image=encoded(DARK)), "r"))
    service.close()
    (row,) = read_records(tmp_path).to_pylist()
    assert row["text"] == ""
    assert np.allclose(row["embedding"], service.session.embed([service.session.bundle.decoding.picture(file_of(DARK))])[0])


def test_of_a_search_by_picture_nothing_is_kept_of_the_picture(settings: Settings, tmp_path: Path) -> None:
    service = Service(Settings(settings.name, tmp_path, 1, settings.bundle_folder, settings.config), "writer")
    asyncio.run(service.ask("search", body(image=encoded(DARK)), "r"))
    service.close()
    (row,) = read_records(tmp_path).to_pylist()
    assert (row["text"], row["embedding"]) == ("", None)


class Counting(base.Task):
    """Counts letters."""

    name = "count"
    Config = PluginConfig
    Request = base.TextRequest
    Response = base.Response


def test_a_task_about_texts_is_refused_where_the_model_reads_pictures(settings: Settings) -> None:
    config = ServeConfig(tasks=("embed", {"type": f"{__name__}:Counting"}))
    with pytest.raises(ConfigError, match="'count' asks about `text`, and this model reads `image`"):
        load_tasks(BundleSession.open(settings.bundle_folder), config)


class Looking(Counting):
    """Looks at pictures."""

    name = "look"
    Request = base.ImageRequest


def test_a_task_about_pictures_is_refused_where_the_model_reads_texts(session: BundleSession) -> None:
    config = ServeConfig(tasks=("embed", {"type": f"{__name__}:Looking"}))
    with pytest.raises(ConfigError, match="'look' asks about `image`, and this model reads `text`"):
        load_tasks(session, config)


def test_pictures_are_not_continued(settings: Settings) -> None:
    generate = TASKS.load("generate")
    with pytest.raises(BundleError, match=r"has no generator\.onnx; it answers classify, embed, search"):
        generate(BundleSession.open(settings.bundle_folder), generate.Config())


def test_no_more_pictures_are_decoded_at_a_time_than_the_replica_has_cores(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, most = [], []

    def decode(how: Decoding, data: bytes) -> np.ndarray:
        at_work.append(data)
        most.append(len(at_work))
        time.sleep(0.02)
        at_work.pop()
        return np.zeros((1, 4, 4), np.uint8)

    async def ask_six() -> None:
        await asyncio.gather(*(service.ask("embed", body(image=""), str(number)) for number in range(6)))

    monkeypatch.setattr(Decoding, "picture", decode)
    service = Service(Settings(settings.name, tmp_path, 1, settings.bundle_folder, settings.config), "writer")
    asyncio.run(ask_six())
    service.close()
    assert most == [1] * 6


def test_of_large_pictures_a_batch_holds_fewer(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysl.release.runtime.BATCH_NUMBERS", 3 * 4 * 4)
    service = Service(Settings(settings.name, tmp_path, 1, settings.bundle_folder, settings.config), "writer")
    service.close()
    assert {batcher.max_batch_size for batcher in service._batchers.values()} == {3}
