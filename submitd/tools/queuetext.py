"""Messages of the queue as ``submitd-queue`` prints them: lines for a person, or JSON."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from submitd.spool.records import Listed, QueuedRecipient, Shown


def stamp(when: float | None) -> str:
    """A time as people read it, in the local zone; ``-`` for none."""
    if not when:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(when))


def asLine(listed: Listed) -> str:
    """One message of a list, and a line for each of its recipients."""
    message = listed.message
    if message is None:
        return _plain([f"{listed.id}  damaged: {listed.damage}"])
    head = (
        f"{listed.id}  {stamp(message.arrived)}  {message.size:9d}  "
        f"{message.envelope.reversePath}  {message.login or '-'}"
    )
    return _plain([head, *(f"    {_line(recipient)}" for recipient in listed.recipients)])


def _line(recipient: QueuedRecipient) -> str:
    due = f" due {stamp(recipient.due)}" if recipient.due else ""
    reply = f"  ({recipient.reply})" if recipient.reply else ""
    return f"{recipient.state.value:9s} {recipient.mailbox}{due}{reply}"


def asText(shown: Shown) -> str:
    """All about one message, for a person."""
    lines = [f"id          {shown.id}"]
    if shown.damage:
        lines.append(f"damage      {shown.damage}")
    if shown.message is not None:
        message, envelope = shown.message, shown.message.envelope
        lines += [
            f"arrived     {stamp(message.arrived)}",
            f"login       {message.login or '-'}",
            f"client      {message.client or '-'}",
            f"size        {message.size}",
            f"sender      {envelope.reversePath}",
            f"parameters  {' '.join(_parameters(envelope.parameters)) or '-'}",
        ]
    lines += ["", "recipients:", *(f"  {_line(recipient)}" for recipient in shown.recipients)]
    lines += ["", "history:"]
    for entry in shown.history:
        which = "-" if entry.position is None else str(entry.position)
        lines.append(
            f"  {stamp(entry.at)}  {which:>3s}  {entry.event}  {entry.text}  [{entry.who}]"
        )
    header = shown.header.decode("utf-8", "backslashreplace").splitlines()
    return _plain([*lines, "", "header:", *(f"  {line}" for line in header)])


def _parameters(parameters: dict[str, str | None]) -> list[str]:
    return [name if value is None else f"{name}={value}" for name, value in parameters.items()]


def asJson(item: Listed | Shown) -> dict[str, Any]:
    """A message for a program; times are ISO 8601 or null."""
    message = item.message
    made: dict[str, Any] = {"id": item.id, "damage": item.damage or None}
    if message is not None:
        made.update(
            arrived=stamp(message.arrived),
            login=message.login,
            client=message.client,
            size=message.size,
            sender=str(message.envelope.reversePath),
            parameters=message.envelope.parameters,
        )
    made["recipients"] = [
        {
            "address": str(recipient.mailbox),
            "state": recipient.state.value,
            "attempts": recipient.attempts,
            "due": stamp(recipient.due) if recipient.due else None,
            "reply": recipient.reply,
        }
        for recipient in item.recipients
    ]
    if isinstance(item, Shown):
        made["header"] = item.header.decode("utf-8", "backslashreplace")
        made["history"] = [
            {
                "at": stamp(entry.at),
                "recipient": entry.position,
                "event": entry.event,
                "text": entry.text,
                "who": entry.who,
            }
            for entry in item.history
        ]
    return made


def _plain(lines: Iterable[str]) -> str:
    """Lines for a terminal, which does not obey what a sender or a next hop has written."""
    return "\n".join(
        "".join(
            letter
            if letter.isprintable() or letter == "\t"
            else letter.encode("unicode_escape").decode("ascii")
            for letter in line
        )
        for line in lines
    )
