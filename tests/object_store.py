"""An S3-compatible store that runs in this process (moto), with the settings by which pyarrow finds it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyarrow import fs


@contextmanager
def object_store(*buckets: str) -> Iterator[fs.S3FileSystem]:
    """A running store with these buckets; AWS_ENDPOINT_URL names it, for processes started meanwhile too."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        store = fs.S3FileSystem(allow_bucket_creation=True, endpoint_override=f"{host}:{port}", scheme="http")
        for bucket in buckets:
            store.create_dir(bucket)
        yield store
    server.stop()
