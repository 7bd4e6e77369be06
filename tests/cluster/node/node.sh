#!/usr/bin/env bash
# One real Kubernetes node on this machine, in namespaces of its own. Needs root on Linux; `make setup` first.
#   node.sh up | down | left | kubeconfig | kubectl ARGS... | exec COMMAND... | load IMAGE.tar... | run COMMAND...
# `left` prints what there is of a node, and fails if there is anything.
# `run` brings the node up, runs a command against it and takes it down, whatever happens.
root=$(cd "$(dirname "$0")/../../.." && pwd)
PYTHONPATH="$root:$root/src:$root/tests" exec "$root/.venv/bin/python" -m cluster.node "$@"
