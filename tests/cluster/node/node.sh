#!/usr/bin/env bash
# One real Kubernetes node on this machine, in namespaces of its own. Needs root on Linux; `make setup` first.
#   node.sh build | up | down | left | kubeconfig | kubectl ARGS... | exec COMMAND... | load IMAGE.tar... | run COMMAND...
# `build` has everything there that the node and its tests need: once, or in the background, long before they do.
# `left` prints what there is of nodes, and fails if there is anything.
# `run` brings the node up, runs a command against it and takes it down, whatever happens.
# MODELYARD_TEST_NODE=b (to h) is another node beside the first one, for all of these and for the tests.
root=$(cd "$(dirname "$0")/../../.." && pwd)
PYTHONPATH="$root:$root/src:$root/tests" exec "$root/.venv/bin/python" -m cluster.node "$@"
