"""What is explored: bounds small enough to finish, each large enough for one part of the protocol."""

from __future__ import annotations

from dataclasses import replace

from tests.proof.model.mutations import Mutation
from tests.proof.model.world import Bounds

LBS = (("lbs",),)
EVERYTHING = (("lbs", "records"),)
EITHER = (("lbs",), ("records",), ("lbs", "records"))

PRESENCE = Bounds(present=True, prompt=True)
LOCKS = replace(PRESENCE, nothing=True)
"""A violation shows as a lock that somebody believes in; streams would only add states."""

FAILS_OVER = replace(LOCKS, cut=1, fail_over=1, forgets=LBS, robs=False, instant=True)

QUICK = {
    "a lapse": Bounds(stall=1),
    "a lapse each": Bounds(stall=2),
    "three consumers, a lapse": Bounds(consumers=3, stall=1),
    "a kill and a newcomer": Bounds(consumers=3, joiners=1, crash=1),
    "a lapse and a lost message": Bounds(stall=1, loss=1),
    "a kill and a lost message": Bounds(crash=1, loss=1, joiners=1),
    "a lock that is evicted, a lost message": Bounds(evict=1, loss=1),
    "releases and old offers": Bounds(release=1, stall=1, stale_offers=True),
    "audits at any time": Bounds(release=1, loss=1, idle_audits=True),
    "batches of two, a lapse": Bounds(streams=(0, 1), stall=1, batches=True),
    "checkpoints, a lapse": Bounds(stall=1, checkpoints=1),
    "announced twice": Bounds(streams=(0, 0), checkpoints=1),
    "a handler fails, a lost message": Bounds(failure=1, loss=1, checkpoints=1, done=False),
    "a handler fails, a lapse": Bounds(failure=1, stall=1, checkpoints=1, done=False),
    "a handler fails, a release": Bounds(failure=1, release=1, checkpoints=1, done=False),
    "a handler fails, a kill": Bounds(failure=1, crash=1, checkpoints=1, done=False),
    "a handler fails, two kills, a release": Bounds(
        consumers=3, failure=1, crash=2, release=1, checkpoints=1, done=False, prompt=True
    ),
    "nothing was tried, a kill, a lapse": Bounds(
        counts=True, untried=True, release=1, crash=1, stall=1, checkpoints=1, done=False, prompt=True
    ),
    "announced twice, a handler fails": Bounds(streams=(0, 0), failure=1, checkpoints=1, prompt=True),
    "a fail-over and a lost message": Bounds(fail_over=1, loss=1, forgets=LBS, prompt=True, robs=False),
    "a fail-over under checkpoints": Bounds(fail_over=1, forgets=LBS, checkpoints=1, done=False, robs=False),
    "presence: a listener is cut": replace(PRESENCE, cut=1),
    "presence: a listener is cut, and its client not told": replace(PRESENCE, half=1),
    "presence: two cuts": replace(LOCKS, cut=2),
    "presence: a cut, and one that its client is not told": replace(LOCKS, cut=1, half=1),
    "presence: a cut, a beat is overdue": replace(LOCKS, cut=1, overdue=1),
    "presence: kills": replace(PRESENCE, consumers=3, crash=2, patient=True, tenure=True, done=False),
    "presence: a newcomer, two cuts": replace(LOCKS, joiners=1, cut=2),
    "presence: a newcomer, a cut, a lost message": replace(LOCKS, joiners=1, cut=1, loss=1),
    "presence: a newcomer, a cut, a lapse": replace(LOCKS, joiners=1, cut=1, stall=1),
    "presence: a cut, a kill, a member without": replace(
        PRESENCE, consumers=3, without=1, cut=1, crash=1, done=False, instant=True
    ),
    "presence: declared anew, a cut, a lost message": replace(LOCKS, again=1, cut=1, loss=1),
    "presence: a fail-over, a cut": FAILS_OVER,
}
"""With every change; a minute in all."""

DEEP = {
    "three lapses": Bounds(stall=3),
    "three consumers, two lapses": Bounds(consumers=3, stall=2),
    "two lapses and a lost message": Bounds(stall=2, loss=1),
    "a lapse and two lost messages": Bounds(stall=1, loss=2),
    "leaving, a lapse, a lost message": Bounds(leave=1, stall=1, loss=1),
    "an evicted lock, a lapse, a release": Bounds(evict=1, stall=1, release=1),
    "releases, lapses, old offers": Bounds(release=2, stall=2, stale_offers=True),
    "audits at any time, lapses": Bounds(stall=2, release=1, idle_audits=True),
    "three consumers, batches of two": Bounds(consumers=3, streams=(0, 1), crash=1, batches=True),
    "checkpoints, a lapse, a lost message": Bounds(stall=1, loss=1, checkpoints=2),
    "announced twice, a lapse": Bounds(streams=(0, 0), stall=1, checkpoints=1, prompt=True),
    "announced twice, a release, a lost message": Bounds(
        streams=(0, 0), release=1, loss=1, checkpoints=1, prompt=True
    ),
    "two failures, two lost messages": Bounds(failure=2, loss=2, checkpoints=1, done=False, prompt=True),
    "nothing was tried, a kill, a lapse, a lost message": Bounds(
        counts=True, untried=True, release=1, crash=1, stall=1, loss=1, checkpoints=1, done=False, prompt=True
    ),
    "two failures, a lapse": Bounds(failure=2, stall=1, checkpoints=1, done=False),
    "a failure, a kill and a newcomer": Bounds(
        consumers=3, joiners=1, failure=1, crash=1, checkpoints=1, done=False
    ),
    "a failure, a lapse, a lost message": Bounds(failure=1, stall=1, loss=1, checkpoints=1, done=False),
    "a failure, a release, a lost message": Bounds(failure=1, release=1, loss=1, checkpoints=1, done=False),
    "a fail-over, locks go early": Bounds(fail_over=1, forgets=LBS, prompt=True),
    "a fail-over, a lapse": Bounds(fail_over=1, stall=1, forgets=LBS, prompt=True, robs=False),
    "a fail-over, a lost message": Bounds(fail_over=1, loss=1, forgets=LBS, robs=False),
    "a fail-over of either or both under checkpoints, a lapse": Bounds(
        fail_over=1, stall=1, forgets=EITHER, checkpoints=1, done=False, prompt=True, robs=False
    ),
    "a fail-over under checkpoints, locks go early": Bounds(
        fail_over=1, forgets=LBS, checkpoints=1, done=False, prompt=True
    ),
    "two fail-overs under checkpoints": Bounds(
        fail_over=2, forgets=LBS, checkpoints=1, done=False, prompt=True, robs=False
    ),
    "announced twice, a fail-over": Bounds(
        streams=(0, 0), fail_over=1, forgets=LBS, checkpoints=1, prompt=True, robs=False
    ),
    "presence: a cut, a lost message": replace(PRESENCE, cut=1, loss=1),
    "presence: two cuts of owners": replace(PRESENCE, cut=2),
    "presence: a cut, a lapse": replace(PRESENCE, cut=1, stall=1),
    "presence: declared anew, two cuts": replace(LOCKS, again=1, cut=2),
    "presence: declared anew, a cut, a lapse": replace(LOCKS, again=1, cut=1, stall=1),
    "presence: two cuts, a lapse": replace(LOCKS, cut=2, stall=1),
    "presence: a newcomer, two cuts, a lost message": replace(LOCKS, joiners=1, cut=2, loss=1),
    "presence: unnoticed and overdue": replace(PRESENCE, half=1, cut=1, overdue=1, done=False),
    "presence: three members, kills and cuts": replace(
        PRESENCE, consumers=3, cut=1, crash=2, patient=True, tenure=True, done=False, instant=True
    ),
    "presence: evicted, a cut": replace(PRESENCE, evict=1, cut=1, done=False),
    "presence: somebody leaves, a cut, a lost message": replace(
        PRESENCE, leave=1, cut=1, loss=1, done=False, instant=True
    ),
    "presence: owners fail over": replace(PRESENCE, fail_over=1, forgets=LBS, robs=False, done=False),
    "presence: a fail-over, a cut, step by step": replace(FAILS_OVER, instant=False),
}
"""Run by hand: ``python -m tests.proof.model --deep``."""

MUTANTS = {
    Mutation.DEPOSE_WITHOUT_COMPARING: ("presence", replace(PRESENCE, cut=1)),
    Mutation.DEPOSE_ANOTHER_NONCE: ("G5", replace(LOCKS, cut=2)),
    Mutation.DECLARATION_SURVIVES: ("G5", FAILS_OVER),
    Mutation.WATCHER_FOR_EVER: (
        "G3", replace(PRESENCE, consumers=3, crash=2, patient=True, tenure=True, done=False)
    ),
    Mutation.BELIEVES_UNSEEN: ("G5", replace(PRESENCE, cut=1)),
    Mutation.BEAT_ENDS_DOUBT: ("G5", replace(PRESENCE, cut=1)),
    Mutation.RESUME_ENDS_DOUBT: ("G5", replace(LOCKS, joiners=1, cut=1, stall=1)),
    Mutation.WITHDRAW_WAITS: (
        "G3", replace(PRESENCE, consumers=1, joiners=1, cut=1, loss=1, done=False)
    ),
    Mutation.NOT_WITHDRAWN: ("G5", replace(LOCKS, joiners=1, cut=1, loss=1)),
    Mutation.LATE_DECLARATION: ("G5", replace(LOCKS, joiners=1, cut=2)),
    Mutation.LATE_WITHOUT_DOUBT: ("G5", replace(LOCKS, joiners=1, cut=2)),
    Mutation.WITHDRAWN_BEFORE: ("G5", replace(LOCKS, joiners=1, cut=2)),
    Mutation.DEPOSED_GIVES_UP: ("presence", replace(PRESENCE, cut=1)),
    Mutation.CLAIM_IN_TWO_STEPS: ("G3", Bounds(consumers=3, stall=1)),
    Mutation.CLAIM_FROM_THE_LIVING: ("G3", Bounds(stale_offers=True, stall=1)),
    Mutation.DONE_WITHOUT_FENCE: ("G1", Bounds(release=1, stall=1)),
    Mutation.RELEASE_WITHOUT_FENCE: ("G1", Bounds(release=2, stall=1)),
    Mutation.DONE_AFTER_LAPSE: ("G1", Bounds(stall=1, loss=1)),
    Mutation.DONE_AFTER_FAIL_OVER: ("G1", Bounds(fail_over=1, loss=1, forgets=LBS, prompt=True, robs=False)),
    Mutation.DONE_BEFORE_AUDIT: ("G1", Bounds(fail_over=1, loss=1, forgets=LBS, prompt=True, robs=False)),
    Mutation.DONE_UNCONFIRMED: ("G1", Bounds(evict=1, loss=1)),
    Mutation.AUDIT_OVERLAPS_READ: ("G3", Bounds(idle_audits=True)),
    Mutation.AUDIT_OVERLAPS_CLAIM: ("G3", Bounds(idle_audits=True, release=1)),
    Mutation.AUDIT_OVERLAPS_DONE: ("G3", Bounds(idle_audits=True)),
    Mutation.AUDIT_OVERLAPS_RELEASE: ("G3", Bounds(idle_audits=True, release=1)),
    Mutation.NO_AUDIT: ("G3", Bounds(loss=1)),
    Mutation.REVIVED: ("G2", Bounds(stall=1)),
    Mutation.CLAIM_REVIVED: ("G2", Bounds(release=1, stall=1, stale_offers=True)),
    Mutation.READ_ACROSS_LAPSE: ("G3", Bounds(stall=1)),
    Mutation.CLAIM_ACROSS_LAPSE: ("G3", Bounds(release=1, stall=1)),
    Mutation.LATE_BEAT: ("G5", Bounds(stall=1)),
    Mutation.RESUME_KEEPS_ALL: ("G3", Bounds(stall=1)),
    Mutation.RESUME_LOOKS_FIRST: ("G3", Bounds(stall=1)),
    Mutation.BEGIN_WITHOUT_CONSUMER: (
        "G1", Bounds(fail_over=1, forgets=LBS, checkpoints=1, done=False, prompt=True, robs=False)
    ),
    Mutation.BEGIN_WITHOUT_ORDER: ("G1", Bounds(streams=(0, 0), checkpoints=1)),
    Mutation.CHECKPOINT_WITHOUT_CONSUMER: (
        "G1", Bounds(fail_over=1, forgets=EVERYTHING, checkpoints=1, done=False, prompt=True, robs=False)
    ),
    Mutation.CHECKPOINT_WITHOUT_FENCE: ("G1", Bounds(release=1, loss=1, checkpoints=1)),
    Mutation.CHECKPOINT_GOES_BACK: ("G1", Bounds(loss=1, checkpoints=2)),
    Mutation.BEGIN_COUNTS_AGAIN: ("G8", Bounds(failure=1, loss=1, checkpoints=1, done=False)),
    Mutation.BEGIN_FORGETS_FAILURES: ("G8", Bounds(failure=1, checkpoints=1, done=False)),
    Mutation.BEGIN_KEEPS_FAILURES: ("G8", Bounds(streams=(0, 0), failure=1, checkpoints=1, prompt=True)),
    Mutation.FAIL_WITHOUT_FENCE: ("G1", Bounds(failure=1, stall=1, checkpoints=1, done=False)),
    Mutation.FAIL_COUNTS_AGAIN: (
        "G8", Bounds(failure=1, loss=1, crash=1, checkpoints=1, done=False, prompt=True)
    ),
    Mutation.FAIL_AFTER_PROGRESS: ("G8", Bounds(failure=1, checkpoints=1, done=False)),
    Mutation.FAIL_IS_A_DEATH: ("G8", Bounds(failure=1, checkpoints=1, done=False)),
    Mutation.FAIL_ABSOLVES_ALL: ("G8", Bounds(failure=1, crash=1, checkpoints=1, done=False)),
    Mutation.LAPSE_IS_A_DEATH: ("G8", Bounds(counts=True, stall=1, checkpoints=1, done=False)),
    Mutation.LAPSE_ABSOLVES_TWICE: (
        "G8", Bounds(failure=1, stall=1, crash=1, checkpoints=1, done=False, prompt=True)
    ),
    Mutation.STANDSTILL_IS_NO_DEATH: ("G8", Bounds(counts=True, stall=1, checkpoints=1, done=False)),
    Mutation.SETTLE_TAKES_TWICE: (
        "G8",
        Bounds(counts=True, untried=True, release=1, crash=1, loss=1, checkpoints=1, done=False, prompt=True),
    ),
    Mutation.SETTLE_FORGETS_DEATHS: (
        "G8", Bounds(counts=True, untried=True, release=1, crash=1, checkpoints=1, done=False)
    ),
    Mutation.SETTLE_FORGETS_FAILURES: ("G8", Bounds(failure=1, release=1, checkpoints=1, done=False)),
    Mutation.SETTLE_WITHOUT_FENCE: ("G8", Bounds(counts=True, release=1, stall=1, checkpoints=1, done=False)),
}  # fmt: skip
"""The guarantee that each bug breaks, and the bounds that show it."""
