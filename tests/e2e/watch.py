# SPDX-License-Identifier: Apache-2.0
"""A job's status as a table for people. Pure: a status goes in, lines come out."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_MARKS = {
    "Succeeded": "+",
    "Running": ">",
    "Starting": ">",
    "Retrying": "!",
    "Failed": "x",
    "Suspended": "=",
}
_COLUMNS = "  {mark} {stage:9} {phase:11} {percent:>5} {time:>7} {rate:>12} {eta:>7}  {note}"


def stage_table(stages: Sequence[str], status: Mapping[str, Any], now: datetime) -> list[str]:
    """One line a stage: phase, percent, time, rate, time left and what it says of itself.

    Args:
        stages: the job's stages in order.
        status: `.status` of the R1RewardJob.
        now: with a time zone.
    """
    header = _COLUMNS.format(
        mark=" ", stage="STAGE", phase="PHASE", percent="DONE", time="TIME", rate="RATE",
        eta="LEFT", note="",
    )  # fmt: skip
    by_name = {s["name"]: s for s in status.get("stages", [])}
    progress = status.get("progress") or {}
    lines = [header.rstrip()]
    for name in stages:
        stage = by_name.get(name, {"name": name, "phase": "Pending"})
        current = (
            progress.get("stage") == name
            and progress.get("attempt") == stage.get("attempt")
            and stage["phase"] == "Running"
        )
        lines.append(_line(stage, progress if current else {}, now).rstrip())
    blocked = condition(status, "Blocked")
    if blocked and blocked["status"] == "True":
        lines.append(f"  blocked: {blocked['reason']}: {blocked.get('message', '')}")
    return lines


def _line(stage: Mapping[str, Any], progress: Mapping[str, Any], now: datetime) -> str:
    phase = stage["phase"]
    done = phase == "Succeeded"
    seconds = _elapsed(stage, now)
    percent = "100 %" if done else f"{progress['percent']} %" if progress else ""
    return _COLUMNS.format(
        mark=_MARKS.get(phase, " "),
        stage=stage["name"],
        phase=phase,
        percent=percent,
        time="" if seconds is None else duration(seconds),
        rate=_rate(stage, progress, now),
        eta=duration(progress["etaSeconds"]) if "etaSeconds" in progress else "",
        note=_note(stage, progress),
    )


def _note(stage: Mapping[str, Any], progress: Mapping[str, Any]) -> str:
    if stage.get("cacheHit"):
        return "already computed"
    if stage["phase"] in ("Retrying", "Failed"):
        return f"{stage.get('reason', '')}: {stage.get('message', '')}"[:120]
    metrics = progress.get("metrics", {})
    shown = [f"{k} {v:.3g}" for k, v in sorted(metrics.items()) if k in _SHOWN]
    return ", ".join([*shown, *([progress["message"]] if progress.get("message") else [])])


_SHOWN = ("loss", "reward/mean", "reward/result", "accuracy", "accepted")


def _rate(stage: Mapping[str, Any], progress: Mapping[str, Any], now: datetime) -> str:
    running = stage.get("runningTime")
    step = progress.get("step", 0)
    if not running or not step:
        return ""
    minutes = (now - parse_time(running)).total_seconds() / 60
    return f"{step / minutes:.1f} /min" if minutes > 0 else ""


def _elapsed(stage: Mapping[str, Any], now: datetime) -> float | None:
    if not stage.get("startTime"):
        return None
    end = parse_time(stage["completionTime"]) if stage.get("completionTime") else now
    return max(0.0, (end - parse_time(stage["startTime"])).total_seconds())


def stage_seconds(status: Mapping[str, Any]) -> dict[str, int]:
    """Seconds of every stage that has ended, waiting included."""
    return {
        stage["name"]: round(seconds)
        for stage in status.get("stages", [])
        if stage.get("completionTime")
        and (seconds := _elapsed(stage, parse_time(stage["completionTime"]))) is not None
    }


def duration(seconds: float) -> str:
    """As `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def parse_time(text: str) -> datetime:
    """RFC 3339 in UTC."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The condition of a type, if there is one."""
    return next((c for c in status.get("conditions", []) if c["type"] == kind), None)


def stage(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A stage's entry; of one that is not there yet, one that is Pending without attempts."""
    pending = {"name": name, "phase": "Pending", "attempt": 0}
    return next((s for s in status.get("stages", []) if s["name"] == name), pending)


def is_true(status: Mapping[str, Any], kind: str) -> bool:
    """Whether the condition of a type is True."""
    found = condition(status, kind)
    return found is not None and found["status"] == "True"


def summary_lines(status: Mapping[str, Any]) -> list[str]:
    """The job's figures, one a line."""
    figures = status.get("summary", {})
    width = max((len(k) for k in figures), default=0)
    return [f"  {name:{width}}  {figures[name]}" for name in sorted(figures)]
