"""Build the images: `python -m tools.images [--only NAME]... [--prefix PREFIX] [--out FOLDER]`."""

import argparse
import sys
import time
from pathlib import Path

from tools.images import build, cache
from tools.images.errors import CannotBuild


def main() -> int:
    """Prints one line for each image: name, archive, size, seconds, digest."""
    parser = argparse.ArgumentParser(prog="python -m tools.images", description="Build the images as OCI archives.")
    parser.add_argument("--only", action="append", choices=list(build.IMAGES), help="this image only; may be repeated")
    parser.add_argument("--prefix", default=build.PREFIX, help="what the names begin with (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=build.ROOT / "build/images", help="(default: build/images)")
    parser.add_argument("--compression", type=int, default=1, choices=range(10), help="gzip's; 0 is none (default: 1)")
    parser.add_argument(
        "--cache", type=Path, default=build.folder(), help="where layers are kept (default: %(default)s)"
    )
    given = parser.parse_args()
    try:
        for name in given.only or build.IMAGES:
            start = time.monotonic()
            built = build.build(name, given.cache, prefix=given.prefix, compression=given.compression)
            target = given.out / f"{name}.tar"
            cache.copy(built.image.archive, target)
            target.with_suffix(".cdx.json").write_bytes(built.sbom)
            seconds, size = time.monotonic() - start, built.image.size / 1e6
            print(f"{built.image.name}  {target}  {size:.0f} MB  {seconds:.1f} s  {built.image.digest}")
    except CannotBuild as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
