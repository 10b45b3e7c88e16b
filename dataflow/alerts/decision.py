"""Says of each anomaly of an instance why the rule of news made it an alert, or did not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

import msgspec

from dataflow.alerts.news import Heard, News, odds

__all__ = ["Decision", "Rule", "decisions"]

Rule: TypeAlias = Literal["first", "worse", "near", "soon", "known", "daily"]


class Decision(msgspec.Struct, frozen=True):
    """Whether an anomaly is an alert, and by which rule.

    `first`: there was none in the last `hold` readings. `worse`: its score is above `covered`, up
    to which scores were known. `near`: its value is near what is expected. `soon`: its score is
    above `covered`, less than an hour after an alert. `known`: it is not. `daily`: it is, and it
    came at this hour on two of the last three days. `since` is the number of readings since the
    last anomaly that counts; None if there was none within `hold`.
    """

    alert: bool
    rule: Rule
    hold: int
    covered: float | None
    since: int | None

    def sentence(self) -> str:
        """Return the decision in words.

        >>> Decision(False, "known", 84, 2 / 3, 3).sentence()
        'no alert: scores up to 0.67 are known, for 84 readings after one that counts, 3 before'
        """
        known = "" if self.covered is None else f"{self.covered:.2f}"
        if self.rule == "first":
            return f"an alert: no trouble was known in the {self.hold} readings before it"
        if self.rule == "worse":
            return f"an alert: scores up to {known} were known, and this one is worse"
        if self.rule == "near":
            return (
                "no alert: the value itself is near what is expected, and only the readings before "
                "it are rare"
            )
        if self.rule == "daily":
            return "no alert: as much came at this hour on two of the last three days"
        if self.rule == "soon":
            return (
                f"no alert: scores up to {known} were known, and this one is worse, but the last "
                "alert was less than an hour before"
            )
        return (
            f"no alert: scores up to {known} are known, for {self.hold} readings after one that "
            f"counts, {self.since} before"
        )


def decisions(
    scored: Iterable[tuple[float, bool]], threshold: float, interval: float = 300.0
) -> Iterator[Decision | None]:
    """Yield for each reading of an instance, in their order, the decision; None if no anomaly.

    Each has a score, and whether its value is near what is expected. `threshold` and `interval` are
    those of `News`.

    >>> scores = [0.6, 0.6, 0.8, *[0.1] * 12, 0.9, 0.95]
    >>> readings = [(score, score == 0.9) for score in scores]
    >>> [it and it.rule for it in decisions(readings, 0.5) if it]
    ['first', 'known', 'soon', 'near', 'worse']
    """
    news, heard = News(threshold, interval), Heard()
    for score, near in scored:
        if score <= threshold:
            heard.passed(1)
            yield None
            continue
        bar, since = heard.bar, heard.since + 1
        paused = since >= news.hold or bar <= odds(news.floor)
        alert = False if near else news.take(heard, score)
        rule: Rule = "first" if paused else "worse"
        if near:
            heard.passed(1)
            rule = "near"
        elif not alert:
            rule = "daily" if heard.usual else "soon"
            if not paused and odds(score) <= bar:
                rule = "known"
        covered = None if paused else bar / (bar + 1.0)
        yield Decision(alert, rule, news.hold, covered, None if paused else since)
