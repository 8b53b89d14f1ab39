"""Pictures in files: folders, zip and tar archives (WebDataset), parquet; on this machine or in an object store."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import ClassVar

from raysl.config import AnyPath, PluginConfig
from raysl.data.images import SUFFIXES
from raysl.data.sources import image_files, stores
from raysl.data.sources.base import BadRows, Item, Partition, files_fingerprint, missing, packed
from raysl.data.sources.image_source import ImageRow, ImageSource
from raysl.data.sources.stores import StoredFile
from raysl.errors import DataError


class ImagesConfig(PluginConfig):
    """Pictures in files."""

    type: str = "images"
    modality: ClassVar[str] = "images"
    path: AnyPath
    """A picture, archive or table, a folder (read with all below it) or a glob; on this machine, or s3://bucket/..., gs://bucket/..."""
    folder_labels: bool = True
    """Whether the folder in which a picture lies names its label (folders, .zip, .tar without .cls files)."""
    image_column: str = "image"
    """Column that holds the bytes (.parquet), or structs with a field `bytes`."""
    label_column: str | None = None
    """Column that holds the label, if there is one (.parquet)."""
    id_column: str | None = None
    """Column that holds the id (.parquet); without it an id is made of the file's name and the row's place."""


class Images(ImageSource):
    """Reads what it can: what is broken is counted under a reason, the rest goes through.

    Members of archives and row groups of tables are divided between partitions; other files go into them one by one.
    """

    Config: ClassVar[type[PluginConfig]] = ImagesConfig
    config: ImagesConfig

    def partitions(self, partition_mb: float) -> list[Partition]:
        def divided(file: StoredFile) -> list[tuple[Item, int]]:
            self._check_columns(file.path)
            return list(_items(file, int(partition_mb * 1e6)))

        sized = (entry for entries in stores.looked_at(divided, self._files()) for entry in entries)
        return [part for whole in packed(sized, partition_mb * 1e6) for part in _cut(whole)]

    def fingerprint(self) -> str:
        return files_fingerprint((file.name, file.size, file.time_ns) for file in self._files())

    def images(self, partition: Partition, bad: BadRows) -> Iterator[ImageRow]:
        root = stores.root_of(self.config.path)
        for name, start, stop in partition:
            yield from image_files.read(f"{root}/{name}", name, start, stop, self.config, bad)

    def _files(self) -> list[StoredFile]:
        found = stores.find(self.config.path)
        known = [file for file in found if _suffix(file.path) in (*SUFFIXES, *image_files.CONTAINERS)]
        known = [file for file in known if not image_files.is_hidden(file.name)]
        if not known:
            raise missing(self.config.path, f"{', '.join(SUFFIXES)}, also in {', '.join(image_files.CONTAINERS)}")
        return known

    def _check_columns(self, path: str) -> None:
        """A column that a table does not have is a mistake in the config, not a bad row."""
        columns = image_files.columns_of(path) if _suffix(path) == ".parquet" else None
        wanted = (self.config.image_column, self.config.label_column, self.config.id_column)
        absent = [name for name in wanted if columns is not None and name is not None and name not in columns]
        if columns is not None and absent:
            raise DataError(
                f"{path} has no column '{absent[0]}'. Its columns: {', '.join(columns) or 'none'}. "
                f"Set prepare.source.image_column, label_column or id_column."
            )


def _suffix(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).suffix.lower()


def _items(file: StoredFile, num_bytes: int) -> Iterator[tuple[Item, int]]:
    index = image_files.INDEXES.get(_suffix(file.path))
    if index is None:
        yield (file.name, 0, -1), file.size
    else:
        yield from (((file.name, start, stop), size) for start, stop, size in index(file.path, file.size, num_bytes))


def _cut(partition: Partition) -> Iterator[Partition]:
    """Ten thousand small files are too many for one unit."""
    step = image_files.MAX_MEMBERS
    yield from (partition[start : start + step] for start in range(0, len(partition), step))
