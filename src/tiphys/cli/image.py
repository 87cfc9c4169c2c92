"""`tiphys image load` and `tiphys image list`: the node's image store, reached through its files.

The store locks its own files, so that the cluster may be running, or not.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import click

from tiphys.base.errors import TiphysError
from tiphys.cli.text import format_bytes, format_table
from tiphys.cluster.config import Files, read_config
from tiphys.runtime.images import ImageStore


class NotLoaded(TiphysError):
    """The file is no archive of images."""


def load_image(name: str, file: str, reference: str) -> None:
    """Load an archive and print the images that it held. Raises NotLoaded."""
    config = read_config(name)
    if config.simulated:
        click.echo("nodes are simulated: pods start without images, so loading one changes nothing", err=True)
    store = _store(name)
    if file != "-":
        _load(store, Path(file), reference)
        return
    if sys.stdin.isatty():
        raise NotLoaded("nothing comes on standard input; try: docker save IMAGE | tiphys image load -")
    with tempfile.NamedTemporaryFile(dir=Files.of(name).runtime, prefix="load-") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy, 1 << 20)
        copy.flush()
        _load(store, Path(copy.name), reference)


def _load(store: ImageStore, path: Path, reference: str) -> None:
    try:
        loaded = store.load_archive(path, reference)
    except TiphysError as error:
        raise NotLoaded(str(error).split("\n", 1)[0].rstrip(":")) from error
    except (tarfile.TarError, KeyError, ValueError, EOFError) as error:
        raise NotLoaded(
            f"{path} is not an archive of images ({error}); make one with `docker save -o FILE IMAGE`"
        ) from error
    if not loaded:
        raise NotLoaded(f"{path} holds no image for this machine's architecture")
    for image in loaded:
        click.echo(f"loaded {image}")


def list_images(name: str, output: str) -> None:
    """Print the images of the node."""
    read_config(name)
    images = sorted(_store(name).images(), key=lambda image: image.tags)
    if output == "json":
        listed = [{"id": i.id, "tags": i.tags, "digests": i.digests, "sizeBytes": i.size_bytes} for i in images]
        click.echo(json.dumps(listed))
        return
    rows = [
        (tag, image.id.removeprefix("sha256:")[:12], format_bytes(image.size_bytes))
        for image in images
        for tag in image.tags or image.digests or ("<none>",)
    ]
    click.echo(format_table(("IMAGE", "ID", "SIZE"), rows))


def _store(name: str) -> ImageStore:
    return ImageStore(Files.of(name).runtime / "images")
