"""`modelyard describe`: one object for people to read."""

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import click

from modelyard.base import durations
from modelyard.base.clock import seconds_since_epoch
from modelyard.base.errors import UserError
from modelyard.cli import output, words
from modelyard.cli.session import Session, Where, run, server_options
from modelyard.cli.why import case_of
from modelyard.control.kube import resources
from modelyard.sdk import load, objects, progress, traffic
from modelyard.sdk.diagnosis import Case
from modelyard.sdk.load import Loads
from modelyard.sdk.merge import LAST_APPLIED
from modelyard.sdk.objects import Object


@click.command(epilog="Example: modelyard describe modelservice digits", short_help="Show one object in detail.")
@click.argument("asked", nargs=-1, required=True, metavar="KIND NAME")
@server_options
def command(where: Where, asked: tuple[str, ...]) -> None:
    """Show an object: what was declared, its conditions, revisions and events. By KIND NAME or KIND/NAME."""

    async def work(session: Session) -> list[str]:
        found = []
        for resource, name in words.objects(asked):
            namespace = session.namespace if resource.namespaced else None
            body = await objects.get(session.client, resource, namespace, name)
            if body is None:
                place = f" in namespace {namespace}" if namespace else ""
                raise UserError(f"there is no {resource.kind} {name}{place}")
            case = await case_of(session, body) if resource in resources.OURS else Case(body=body)
            if resource is resources.MODELSERVICES:
                case = replace(case, loads=await load.of(session.client, body))
            found.append(described(case, time.time()))
        return found

    click.echo("\n\n".join(run(where, work)))


def described(case: Case, now: float) -> str:
    """The sections of one object. now: seconds since 1970, for ages."""
    body = case.body
    metadata = body["metadata"]
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    facts = {
        "Name": metadata["name"],
        "Namespace": metadata.get("namespace", ""),
        "Kind": f"{body['kind']} ({body['apiVersion']})",
        "Labels": _pairs(metadata.get("labels") or {}),
        "Annotations": _pairs(annotations),
        "Age": _age(metadata.get("creationTimestamp"), now),
        **_status(body, now),
    }
    width = max(map(len, facts)) + 2
    parts = [f"{name + ':':<{width}} {value}" for name, value in facts.items() if value]
    content = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    for key, value in _masked(body["kind"], content).items():
        parts += ["", f"{key[:1].upper()}{key[1:]}:", *_tree(value)]
    parts += _partitions(body) + _conditions(body, now) + _revisions(case, now)
    parts += _loads(case.loads) + _events(case, now)
    return "\n".join(parts)


def _status(body: Object, now: float) -> dict[str, str]:
    status = body.get("status") or {}
    found = {
        "URL": str(status.get("url") or ""),
        "Format": " ".join(str(status[key]) for key in ("format", "formatVersion") if status.get(key)),
        "Digest": str(status.get("digest") or ""),
        "Inputs": _tensors(status.get("inputs")),
        "Outputs": _tensors(status.get("outputs")),
    }
    if body["kind"] == "ModelService":
        ready, wanted = status.get("readyReplicas", 0), status.get("desiredReplicas", "?")
        found["Replicas"] = f"{ready} ready, {wanted} asked for"
        found["Traffic"] = "; ".join(f"{name} {share}" for name, share in traffic.shares(status).items())
        found["Compared"] = traffic.compared(status)
        found["Addresses"] = ", ".join(each["url"] for each in status.get("traffic") or () if each.get("url"))
    if body["kind"] == "AccessPolicy":
        found["Services"] = str(status.get("services", ""))
    if body["kind"] == "ModelJob":
        found |= _job(body, now)
    if body["kind"] == "ModelStream":
        found |= _stream(body)
    return found


def _stream(body: Object) -> dict[str, str]:
    """How far a stream is."""
    status, spec = body.get("status") or {}, body.get("spec") or {}
    dead, rate, latency = (status.get(name) for name in ("deadLetters", "recordsPerSecond", "latencyMilliseconds"))
    scored = "" if status.get("records") is None else f"{status['records']:,}"
    pace = [] if rate is None else [f"{rate:,} records/s"]
    pace += [] if latency is None else [f"{latency:,} ms from arrival to commit"]
    return {
        "Delivery": str(status.get("delivery") or ""),
        "Runners": f"{status.get('readyReplicas', 0)} ready, {spec.get('replicas', '?')} asked for",
        "Revision": str(status.get("latestReadyRevision") or ""),
        "Records": scored + (f", {dead:,} of them dead letters" if dead else ""),
        "Expired": f"{status['expired']:,} messages before they were read" if status.get("expired") else "",
        "Pace": ", ".join(pace),
        "Lag": "" if status.get("lag") is None else f"{status['lag']:,} messages waiting",
    }


def _partitions(body: Object) -> list[str]:
    found = (body.get("status") or {}).get("partitions") or ()
    if body["kind"] != "ModelStream" or not found:
        return []
    rows = [
        [str(each["number"]), *(str(each.get(name, "")) for name in ("committed", "lag", "runner"))] for each in found
    ]
    return _section("Partitions", ["NUMBER", "COMMITTED", "LAG", "RUNNER"], rows)


def _job(body: Object, now: float) -> dict[str, str]:
    """How far a job is, and where everything is that it leaves."""
    found = progress.of(body)
    status = body.get("status") or {}
    seconds = found.seconds(now)
    percent = "" if found.percent is None else f"{found.percent}%"
    pace = [f"{found.rows_per_second:,} rows/s" if found.rows_per_second else ""]
    pace += ["" if found.remaining_seconds is None else f"{progress.span(found.remaining_seconds)} left"]
    limit = body["spec"].get("backoffLimit")
    return {
        "State": found.state if found.reason else "",
        "Progress": ", ".join(filter(None, (percent, *pace))),
        "Shards": f"{found.shards[0]:,} of {found.shards[1]:,} committed" if found.shards else "",
        "Rows": _rows(found),
        "Runners": f"{found.active} active, {progress.count(found.failed, 'failure')} of {limit} allowed",
        "Started": _stamp(status.get("startTime"), now),
        "Ended": _stamp(status.get("completionTime"), now),
        "Duration": "" if seconds is None else progress.span(seconds),
        "Metrics": progress.metrics(found),
        "Results": found.output,
        "Run": str(status.get("run") or ""),
        "Dead letters": found.dead_letters if found.error_rows else "",
        "Output model": found.output_model,
    }


def _rows(found: progress.Progress) -> str:
    if found.rows is None:
        return ""
    total = f" of {found.total_rows:,}" if found.total_rows is not None else ""
    return f"{found.rows:,}{total} scored" + (f", {found.error_rows:,} could not be" if found.error_rows else "")


def _stamp(stamp: object, now: float) -> str:
    return f"{stamp} ({_age(stamp, now)} ago)" if stamp else ""


def _tensors(tensors: list[Object] | None) -> str:
    return ", ".join(f"{each['name']} {each['datatype']} {each['shape']}" for each in tensors or ())


def _masked(kind: str, content: Object) -> Object:
    """Secret values are not shown, only their sizes."""
    if kind != "Secret":
        return content
    return {key: {name: f"{len(str(each))} characters" for name, each in value.items()} if key == "data" else value
            for key, value in content.items()}  # fmt: skip


def _conditions(body: Object, now: float) -> list[str]:
    found = (body.get("status") or {}).get("conditions") or ()
    if not found:
        return []
    rows = [
        [each["type"], each["status"], each.get("reason", ""), _age(each.get("lastTransitionTime"), now),
         each.get("message", "")]
        for each in found
    ]  # fmt: skip
    return _section("Conditions", ["TYPE", "STATUS", "REASON", "AGE", "MESSAGE"], rows)


def _revisions(case: Case, now: float) -> list[str]:
    if not case.revisions:
        return []
    status = case.body.get("status") or {}
    shares = traffic.shares(status)
    scored = Counter(
        str(each["runner"]).partition(".")[0] for each in status.get("partitions") or () if "runner" in each
    )
    shares |= {name: f"{count} partition{'s' if count > 1 else ''}" for name, count in scored.items()}
    rows = []
    for each in case.revisions:
        inputs = ((each.get("data") or {}).get("inputs") or {}).get("model") or {}
        name = each["metadata"]["name"]
        age = _age(each["metadata"].get("creationTimestamp"), now)
        rows.append([name, shares.get(name, ""), age, str(inputs.get("name", "")), str(inputs.get("digest", ""))])
    share = "SCORES" if case.body["kind"] == "ModelStream" else "TRAFFIC"
    return _section("Revisions", ["NAME", share, "AGE", "MODEL", "DIGEST"], rows)


def _loads(loads: Loads) -> list[str]:
    """What the gateway saw in the latest seconds, and since it began."""
    if loads.problem:
        return ["", f"Load: not known, since {loads.problem}"]
    if not loads.revisions:
        return []
    rows = [
        [
            each.revision,
            _figure(each.figure("recent_requests_per_second")),
            _figure(each.figure("recent_failures_per_second")),
            _figure(each.figure("recent_latency_seconds", "0.5"), 1000),
            _figure(each.figure("recent_latency_seconds", "0.99"), 1000),
            *(_total(each.figure("requests_total", outcome)) for outcome in ("answered", "refused", "failed")),
        ]
        for each in loads.revisions
    ]
    titles = ["REVISION", "REQUESTS/S", "FAILURES/S", "P50 MS", "P99 MS", "ANSWERED", "REFUSED", "FAILED"]
    return _section("Load", titles, rows)


def _figure(value: float | None, times: int = 1) -> str:
    if value is None:
        return "-"
    if times == 1000 and value == 0:
        return "<1"  # whole milliseconds are counted
    return f"{value * times:,.3g}" if value * times < 100 else f"{value * times:,.0f}"


def _total(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _events(case: Case, now: float) -> list[str]:
    if not case.events:
        return ["", "Events: none"]
    rows = [
        [
            _age(each.get("lastTimestamp"), now),
            str(each.get("count") or 1),
            str(each.get("type", "")),
            str(each.get("reason", "")),
            f"{(each.get('involvedObject') or {}).get('kind', '')}: {each.get('message', '')}",
        ]
        for each in case.events
    ]
    return _section("Events", ["AGE", "COUNT", "TYPE", "REASON", "MESSAGE"], rows)


def _section(title: str, titles: list[str], rows: list[list[str]]) -> list[str]:
    return ["", f"{title}:", *(f"  {line}" for line in output.lines(titles, rows))]


def _tree(value: Any) -> list[str]:
    import yaml

    if isinstance(value, str):
        return [f"  {value}"]
    return [f"  {line}" for line in yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=116).splitlines()]


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _age(stamp: object, now: float) -> str:
    try:
        return durations.age(now - seconds_since_epoch(str(stamp)))
    except ValueError:
        return ""
