"""The three images, layer by layer: system, Python, locked packages, our own source.

archive("runtime", cache) -> the archive's path, made anew only where something it is made from changed
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from tools.images import interpreter, layers, oci, sbom, source, system
from tools.images.cache import Cache, Kept
from tools.images.errors import CannotBuild

ROOT = layers.ROOT
PREFIX = "localhost/modelyard-"
CREATED = 1_767_225_600  # 2026-01-01; SOURCE_DATE_EPOCH says otherwise
_SBOM = "usr/share/sbom"
# The last: onnxruntime's own wheels tell its makers about every model that is loaded, unless told not to.
_ENVIRONMENT = ("LANG=C.UTF-8", "PYTHONUNBUFFERED=1", "ORT_DISABLE_TELEMETRY=1")


@dataclass(frozen=True)
class Recipe:
    """An image: its half of our source, and how it starts. Without parts there is no Python in it."""

    title: str
    description: str
    entrypoint: str
    ports: tuple[int, ...]
    parts: tuple[str, ...] = ()


IMAGES = {
    "runtime": Recipe(
        "Modelyard runtime",
        "Fetches, prepares and serves models, runs jobs and streams",
        "/usr/local/bin/python3",
        (8080, 8081),
        ("base", "runtime", "storage", "wire"),
    ),
    "operator": Recipe(
        "Modelyard operator",
        "Runs models on Kubernetes from their manifests",
        "/usr/local/bin/python3",
        (8080, 18000),
        ("api", "base", "control", "server", "wire"),
    ),
    "gateway": Recipe(
        "Modelyard gateway",
        "Envoy, which Modelyard's operator configures",
        "/usr/local/bin/envoy",
        (8080, 8090, 9901, 9902),
    ),
}


@dataclass(frozen=True)
class Built:
    """An image as an archive, and the document that lists what it is made of."""

    image: oci.Image
    sbom: bytes


def folder() -> Path:
    """Where layers are kept unless said otherwise: in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard-tests/images"


def archive(name: str, kept: Path | None = None, prefix: str = PREFIX) -> Path:
    """The archive of an image, uncompressed, in the folder `kept`; for tests. Its path changes with its content."""
    return build(name, kept or folder(), prefix=prefix).image.archive


def build(name: str, kept: Path, *, prefix: str = PREFIX, compression: int = 0) -> Built:
    """Make the image `<prefix><name>:<version>` or find it in the folder `kept`.

    CannotBuild says what is missing on this machine. Its name and content decide the archive's path.
    """
    if name not in IMAGES:
        raise CannotBuild(f"there is no image {name!r}; there are {', '.join(IMAGES)}")
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or CREATED)
    store = Cache(kept.absolute(), seconds, compression)
    with store.locked():
        made = _layers(name, store)
        document = _document(name, made, seconds)
        made.append(layers.described(store, name, f"{_SBOM}/modelyard-{name}.cdx.json", document))
        return Built(_written(name, f"{prefix}{name}:{source.version()}", made, store), document)


def _layers(name: str, store: Cache) -> list[Kept]:
    recipe, python, base = IMAGES[name], interpreter.find(), layers.base(store)
    if not recipe.parts:
        return [base, layers.envoy(store, python, name)]
    below = layers.python(store, python)
    above = layers.packages(store, python, name, below)
    return [base, below, above, layers.own(store, python, name, recipe.parts)]


def _document(name: str, made: list[Kept], seconds: int) -> bytes:
    components = {each.url or each.name: each for layer in made for each in layer.components}
    return sbom.document(f"modelyard-{name}", source.version(), components.values(), seconds)


def _written(name: str, title: str, made: list[Kept], store: Cache) -> oci.Image:
    recipe = IMAGES[name]
    config = oci.Config(
        entrypoint=(recipe.entrypoint,),
        env=(*oci.Config.env, *(_ENVIRONMENT if recipe.parts else ())),
        user=f"{system.USER}:{system.USER}",
        ports=recipe.ports,
        created=store.seconds,
        labels={
            "org.opencontainers.image.title": recipe.title,
            "org.opencontainers.image.description": recipe.description,
            "org.opencontainers.image.version": source.version(),
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.vendor": "Modelyard",
            "dev.modelyard.sbom": f"/{_SBOM}/modelyard-{name}.cdx.json",
        },
    )
    packed = [each.layer for each in made]
    key = hashlib.sha256(json.dumps([title, *(each.digest for each in packed), repr(config)]).encode()).hexdigest()[:20]
    path = store.folder / f"{name}-{key}.tar"
    record = path.with_suffix(".json")
    if path.is_file() and record.is_file():
        path.touch()
        return oci.Image(path, title, **json.loads(record.read_text()))
    image = oci.write(path, title, packed, config)
    record.write_text(json.dumps({"digest": image.digest, "id": image.id, "size": image.size}))
    store.prune(name, ".tar")
    return image
