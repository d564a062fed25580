"""The demo's verdict: what it finds in the records of a run, and what that means."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import pytest

from redis_stream_client import Fence
from redis_stream_client.demo.history import Harm, History, Incident
from redis_stream_client.demo.ledger import Outcome, Record
from redis_stream_client.demo.settings import Settings
from redis_stream_client.demo.verdict import Facts, Slept, check, conclusion, problems, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTCOMES: dict[str, Outcome] = {"": "accepted", "r": "repeated", "x": "refused"}


def notes(text: str, *, at: float = 0.0) -> list[Record]:
    """Records of one stream: number, writer (which is its fence, too), and `r` if repeated, `x` if refused."""
    found: list[Record] = []
    for number, writer, outcome in re.findall(r"(\d+)([a-z])([rx]?)", text):
        found.append(
            Record(at, "call-1", int(number), writer, f"redis-consumer-{writer}-0123abcd", OUTCOMES[outcome])
        )
    return found


def incident(harm: Harm, worker: str, at: float, *streams: str) -> Incident:
    """Something that befell a worker."""
    return Incident(harm, worker, f"redis-consumer-{worker}-0123abcd", at, dict.fromkeys(streams, worker))


class TestVerdict:
    @pytest.mark.parametrize(
        ("records", "expected"),
        [
            ("1a 2a 3b", []),
            ("1a 2a 2br 3b", []),
            ("1a 2b 2ax 3b", []),
            ("1a 3b", ["of 3 entries 1 lost, 0 twice, 0 out of order"]),
            ("1a 2a", ["of 3 entries 1 lost, 0 twice, 0 out of order"]),
            ("1a 2a 2b 3b", ["of 3 entries 0 lost, 1 twice, 0 out of order"]),
            ("2a 1a 3a", ["of 3 entries 0 lost, 0 twice, 1 out of order"]),
            ("1a 2a 3a 4a", ["of 3 entries 0 lost, 0 twice, 0 out of order, 1 of no entry"]),
            ("1a 2b 3a", ["a wrote entry 3 after a newer owner had"]),
            ("1a 2a 1br 3b", ["b went back from entry 2 to entry 1"]),
            ("", ["of 3 entries 3 lost, 0 twice, 0 out of order"]),
        ],
    )
    def test_records(self, records: str, expected: list[str]) -> None:
        found = [problem.replace("redis-consumer-a-0123abcd", "a") for problem in check("s", notes(records), 3)]
        found = [problem.replace("redis-consumer-b-0123abcd", "b") for problem in found]
        assert found == [f"s: {problem}" for problem in expected]

    def test_one_fence_for_two(self) -> None:
        records = [Record(0.0, "s", number, "f", writer, "accepted") for number, writer in ((1, "a"), (2, "b"))]
        assert check("s", records, 2) == ["s: b and a wrote under one fence"]

    @staticmethod
    def facts(
        records: Sequence[Record],
        *incidents: Incident,
        produced: int = 3,
        left: int = 0,
        dead: int = 0,
        rebalanced: float | None = None,
        slept: Slept | None = None,
    ) -> Facts:
        history = History(incidents)
        history.add(records)
        restarted = any(incident.harm == "restart" for incident in incidents)
        restart = (3.0, 300) if restarted else None
        settings = Settings(4, 1, None, 2.0, len(slept.produced) if slept else 0)
        return Facts(settings, {"call-1": produced}, history, left, dead, restart, rebalanced, slept)

    def test_a_good_run(self) -> None:
        records = [
            *notes("1a", at=10.0),
            *notes("1br 2b", at=10.875),
            *notes("3b", at=13.0),
            *notes("4c 4bx 5c", at=17.5),
            *notes("6d", at=20.25),
        ]
        kill, freeze = incident("kill", "a", 10.5, "call-1"), incident("freeze", "b", 15.0, "call-1")
        facts = self.facts(records, kill, freeze, incident("restart", "c", 20.0, "call-1"), produced=6)
        assert problems(facts) == []
        assert summary(facts) == [
            "  streams          1, shared by 4 workers",
            "  entries          6 produced, 6 effects: 0 lost, 0 twice, 0 out of order",
            "  kill a           1 of 1 stream recovered, p50 0.38 s, max 0.38 s (limit 0.45 s)",
            "  freeze b         1 of 1 stream recovered, p50 2.50 s, max 2.50 s (limit 2.60 s)",
            "  refused          1 late write: 1 of b",
            "  rolling restart  1 worker in 3.0 s, while 300 entries came",
            "                   1 of 1 stream handed over, p50 0.25 s, max 0.25 s (limit 0.50 s)",
            "  repeats          1 after the kill, 0 after the freeze, 0 in the rolling restart",
            "  finished         all streams; the load balancer stream is empty",
        ]
        assert conclusion(facts, []).endswith("nothing lost, nothing twice")

    def test_what_is_not_as_promised(self) -> None:
        records = [*notes("1a", at=1.0), *notes("1br 2b 2ax", at=2.0), *notes("3b", at=3.0)]
        restart, kill = incident("restart", "a", 1.5, "call-1"), incident("kill", "b", 2.5, "call-1")
        facts = self.facts(records, restart, kill, left=1, dead=2)
        assert problems(facts) == [
            "1 of b's streams did not go on after the kill",
            "1 repeat in the rolling restart, where there is no need for any",
            "1 late write in the rolling restart, by workers that had handed over",
            "1 stream never finished",
            "2 announcements in the dead letters",
        ]
        said = summary(facts)
        assert "  kill b           0 of 1 stream recovered" in said
        assert "  unfinished       1 announcement left on the load balancer stream" in said
        assert conclusion(facts, ["this"] * 12).splitlines()[-2:] == ["FAIL: this", "FAIL: … and 2 more"]

    def test_it_must_come_to_the_rolling_restart(self) -> None:
        assert problems(self.facts(notes("1a 2a 3a"))) == ["it did not come to the rolling restart"]

    def test_what_is_late_is_said(self) -> None:
        records = [*notes("1a 2a", at=1.0), *notes("3b", at=2.1)]
        facts = self.facts(records, incident("restart", "a", 1.5, "call-1"))
        assert problems(facts) == []
        assert summary(facts)[-3].endswith("max 0.60 s (limit 0.50 s), 1 late")
        assert conclusion(facts, []).endswith("; but 1 went on late: is this machine busy?")

    def test_other_reasons(self) -> None:
        facts = self.facts(notes("1a 2a 2br 2ax 3b"))
        said = summary(facts)
        assert (
            "  repeats   0 after the kill, 0 after the freeze, 0 in the rolling restart, 1 for other reasons"
            in said
        )
        assert "  other     1 stream taken over for other reasons" in said

    def test_what_moved_when_the_load_was_evened_out(self) -> None:
        facts = self.facts(notes("1a 2a 3b"), incident("restart", "c", 0.5), rebalanced=1.25)
        assert problems(facts) == []
        assert "  rebalanced       1 stream moved; even after 1.2 s" in summary(facts)


class TestSessions:
    @staticmethod
    def facts(text: str, produced: int, awake: int = 0) -> Facts:
        """A good run with one session. Its fences: a letter for each announcement, a number for each owner."""
        records = [
            Record(
                0.0,
                "session-1",
                int(number),
                str(Fence(ord(letter), 0, int(owner))),
                f"redis-consumer-{owner}-0",
                OUTCOMES[outcome],
            )
            for number, letter, owner, outcome in re.findall(r"(\d+)([a-z])(\d)([rx]?)", text)
        ]
        slept = Slept({"session-1": produced}, records, 2, awake)
        return TestVerdict.facts(notes("1a 2a 3a"), incident("restart", "c", 0.5), slept=slept)

    def test_each_announcement_but_the_first_is_a_waking(self) -> None:
        facts = self.facts("1a1 2b1 2b2r 3b2 4c1", 4)
        assert problems(facts) == []
        assert summary(facts)[-4:-1] == [
            "  sessions         1, woken 2 times; in the end none awake",
            "  messages         4 produced, 4 effects: 0 lost, 0 twice, 0 out of order",
            "                   2 owners killed; 1 session went on awake, 1 repeat",
        ]

    def test_a_message_that_lies_there_unread(self) -> None:
        facts = self.facts("1a1 2b1", 3)
        assert problems(facts) == ["session-1: of 3 entries 1 lost, 0 twice, 0 out of order"]

    def test_one_that_does_not_sleep(self) -> None:
        facts = self.facts("1a1 2b1", 2, awake=1)
        assert problems(facts) == ["1 session did not fall asleep"]
        assert summary(facts)[-4].endswith("in the end 1 awake")

    def test_an_older_announcement_that_writes(self) -> None:
        facts = self.facts("1a1 2b1 3a1", 3)
        assert problems(facts) == ["session-1: redis-consumer-1-0 wrote entry 3 after a newer owner had"]

    def test_it_must_come_to_the_sessions(self) -> None:
        facts = dataclasses.replace(self.facts("1a1", 1), slept=None)
        assert problems(facts) == ["it did not come to the sessions"]
