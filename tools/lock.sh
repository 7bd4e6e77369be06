#!/usr/bin/env bash
# Resolve the dependencies anew, for every platform at once, with hashes and without addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() {
    .tools/uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url "$@"
}
lock requirements/bootstrap.in -o requirements/bootstrap.lock
lock requirements/build.in -o requirements/build.lock
lock pyproject.toml -o requirements/base.lock
lock pyproject.toml --group dev -o requirements/dev.lock
# The images run what the tests ran: the versions of dev.lock.
for image in operator runtime gateway; do
    lock --group "pyproject.toml:$image" --constraint requirements/dev.lock -o "requirements/$image.lock"
done
