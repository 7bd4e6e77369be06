"""`modelyard predict`: rows in, a table out."""

import shlex
from typing import Any
from urllib.parse import urlsplit

import click
import numpy as np

from modelyard.base.errors import RetryLater, UserError
from modelyard.base.ids import DEFAULT_NAMESPACE, public_ids
from modelyard.cli import output, rows
from modelyard.cli.calling import Caller, ask, gateway_options
from modelyard.cli.session import Session, Where, run, server_options
from modelyard.control.kube import resources
from modelyard.sdk import find, objects
from modelyard.sdk.client import Client
from modelyard.sdk.tensors import Array

_LONGEST_ARGUMENT = 64_000
_MOST_COLUMNS = 12


@click.command(
    epilog="Example: modelyard predict iris --data '[[5.1, 3.5, 1.4, 0.2]]'", short_help="Send rows to a model."
)
@click.argument("name")
@click.option("-d", "--data", metavar="JSON", help="One row, several, objects by input name, or a whole request.")
@click.option("-f", "--file", metavar="FILE", help="Rows from *.csv, *.json or *.npy; - for stdin (CSV or JSON).")
@click.option("--curl", is_flag=True, help="Print the same request for curl, and send nothing.")
@output.formats("json", "yaml")
@gateway_options
@server_options
def command(
    where: Where, caller: Caller, name: str, data: str | None, file: str | None, curl: bool, form: str | None
) -> None:
    """Send rows to the model NAME (a service, or NAME.NAMESPACE) and print what it answers, a line for each row."""
    if (data is None) == (file is None):
        raise click.UsageError("give the rows either with --data or with --file")
    if where.namespace and "." not in name:
        name = public_ids(where.namespace, name)[-1]

    def work(client: Client, bears_token: bool) -> dict[str, Array] | None:
        inputs = rows.read(data, file, client.metadata(name))
        if not curl:
            return client.predict(name, inputs)
        click.echo(_curl(*client.request(name, inputs), caller.curl(bears_token=bears_token)))
        return None

    url = caller.url or _gateway(where, name)
    try:
        outputs = ask(caller, url, where, work)
    except RetryLater as error:
        if caller.url is not None:
            raise
        raise RetryLater(f"{error.message}; {_from_outside(url)}{_why(name)} says more") from error
    if outputs is None:
        return
    if form is not None:
        output.emit({each: _plain(array) for each, array in outputs.items()}, form)
    else:
        _print(outputs)


def _from_outside(url: str) -> str:
    """Names of Services mean something inside of their cluster alone."""
    host = urlsplit(url).hostname or ""
    if not host.endswith((".svc", ".svc.cluster.local")):
        return ""
    service, namespace, *_ = host.split(".")
    port = urlsplit(url).port or (443 if url.startswith("https") else 80)
    return (
        f"{host} is a name inside the cluster: 'kubectl port-forward -n {namespace} service/{service} 8080:{port}' in "
        "another terminal, and --url http://127.0.0.1:8080, reach it from outside; or "
    )


def _why(name: str) -> str:
    service, _, namespace = name.partition(".")
    return f"'modelyard why {service}{f' -n {namespace}' if namespace else ''}'"


def _gateway(where: Where, name: str) -> str:
    """From what the local server says; behind another context from the service's own status."""
    if where.context is None:
        return find.gateway()
    service, _, namespace = name.partition(".")

    async def work(session: Session) -> str:
        if session.target.local is not None:
            return session.target.local.gateway
        found = await objects.get(
            session.client, resources.MODELSERVICES, namespace or where.namespace or DEFAULT_NAMESPACE, service
        )
        address = str(((found or {}).get("status") or {}).get("url") or "")
        if not address:
            raise UserError(f"{name} has no URL yet; {_why(name)} says more, or give --url")
        return address.partition("/v2/models/")[0]

    return run(where, work)


def _curl(url: str, body: bytes, options: str) -> str:
    text = body.decode()
    start = f"curl -sS {shlex.quote(url)} -H 'Content-Type: application/json'{f' {options}' if options else ''}"
    if len(text) <= _LONGEST_ARGUMENT:
        return f"{start} -d {shlex.quote(text)}"
    return f"{start} -d @- <<'EOF'\n{text}\nEOF"


def _print(outputs: dict[str, Array]) -> None:
    titles: list[str] = []
    columns: list[list[str]] = []
    for name, array in outputs.items():
        if array.ndim == 2 and 1 < array.shape[1] <= _MOST_COLUMNS:
            titles.extend(f"{name}[{index}]" for index in range(array.shape[1]))
            columns.extend([_cell(value) for value in array[:, index]] for index in range(array.shape[1]))
        else:
            titles.append(name)
            columns.append([_row(row) for row in array] if array.ndim else [_cell(array)])
    count = max(map(len, columns), default=0)
    for column in columns:
        column.extend([""] * (count - len(column)))  # an output without a row for each input
    output.table(titles, list(zip(*columns, strict=True)))


def _row(row: Any) -> str:
    if np.ndim(row) == 0:
        return _cell(row)
    values = np.ravel(row)
    if len(values) == 1:
        return _cell(values[0])
    shown = " ".join(_cell(value) for value in values[:_MOST_COLUMNS])
    return f"[{shown}{' ...' if len(values) > _MOST_COLUMNS else ''}]"


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)


def _plain(array: Array) -> Any:
    """As JSON: not-a-number and infinities, which it does not know, become null."""
    if array.dtype.kind == "f" and array.itemsize < 8:
        array = array.astype(str).astype(np.float64)  # 0.1 and not 0.10000000149011612
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        found = array.astype(object)
        found[~np.isfinite(array)] = None
        return found.tolist()
    return array.tolist()
