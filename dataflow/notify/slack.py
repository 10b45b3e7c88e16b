"""Slack, through one of its incoming webhooks."""

from __future__ import annotations

import re
from datetime import datetime

from dataflow.notify.base import Target
from dataflow.notify.digest import Digest, lines, title
from dataflow.notify.summary import severity, summary
from dataflow.records import Incident

__all__ = ["Slack"]

ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'"})

LINK_OR_MENTION = re.compile(r"@|:(?=//)|www(?=\.)|(mailto|tel)(?=:)", re.IGNORECASE)

ZERO_WIDTH_SPACE = "\u200b"


class Slack(Target):
    """Posts the summary as the text of a message, with the link on a line of its own."""

    name = "slack"

    def body(self, incident: Incident, link: str, now: datetime) -> object:
        """Return `{"text": ...}`."""
        text = f"*{incident.state}* ({severity(incident)}) {_escape(summary(incident))}"
        return {"text": f"{text}\n{link}" if link else text}

    def digest(self, digest: Digest, now: datetime) -> object:
        """Return `{"text": ...}`, with a line for each of the worst instances."""
        text = f"*digest* ({digest.severity}) {_escape(title(digest))}"
        listed = [f"• {_escape(line)}" for line in lines(digest)]
        link = digest.incidents[0].link if digest.incidents else None
        return {"text": "\n".join([text, *listed, *([link] if link else [])])}


def _escape(text: str) -> str:
    """Return the text without markup: an instance may be named `<!channel>`.

    Slack also makes links of addresses, and mentions of names, that stand in plain text. It has no
    escape for these, so a space without width divides them.

    >>> _escape("<!here> & co")
    '&lt;!here&gt; &amp; co'
    >>> ascii(_escape("@channel http://a.example me@a.example"))
    "'@\\\\u200bchannel http:\\\\u200b//a.example me@\\\\u200ba.example'"
    """
    return LINK_OR_MENTION.sub(r"\g<0>" + ZERO_WIDTH_SPACE, text.translate(ESCAPES))
