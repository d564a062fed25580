"""Presence in the model: who declares itself, who is watched and deposed, and what they believe meanwhile.

There is no clock. Of time the steps know two things. Half of a client's grace may pass at any time after it lost
its listener: then it is in doubt. And the grace of somebody who was seen absent is not over while its client knows
that it lost its listener, and is not in doubt yet: the listener was lost before it was seen absent, and half of
the grace is less than all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.proof.model import protocol
from tests.proof.model.mutations import Mutation
from tests.proof.model.protocol import FIRST, UNOWNED, Redis, Reply
from tests.proof.model.world import (
    ANSWERED,
    ATTEMPTED,
    AWARE,
    CLOSED,
    DECLARED,
    HELD,
    IN_DOUBT,
    LATE,
    SENT,
    SILENT,
    UNAWARE,
    WITHDRAWN,
    Client,
    Presence,
    World,
    client_of,
    give_up,
    name,
    pay,
    update,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.proof.model.world import Bounds, Step

TOLD = "told"
"""`Presence.lost` where a known bug ends the doubt: there is something to withdraw, and no doubt."""


def surprised(w: World, me: int) -> bool:
    """Whether the server lost a client's listener before the client knew: until then it cannot know better."""
    p = client_of(w, me).presence
    if not p or not p.exposed:
        return False
    return p.lost == UNAWARE or (p.listens and not protocol.listened(w.redis, me))


class PresenceSteps:
    """The steps of presence within bounds, with one mutation or none.

    `missing`: what a client does when Redis says that its lock is not there.
    """

    def __init__(
        self,
        bounds: Bounds,
        mutation: Mutation | None,
        run: dict[str, Callable[..., tuple[Redis, Reply]]],
        missing: Callable[[World, int], World],
    ) -> None:
        self._bounds = bounds
        self._mutation = mutation
        self._run = run
        self._missing = missing

    def initial(self, w: World) -> World:
        """Those that have presence and have joined are declared."""
        if not self._bounds.present:
            return w
        for me, client in list(enumerate(w.clients, FIRST))[self._bounds.without :]:
            declared = client.mode == HELD
            p = Presence() if declared else Presence(False, WITHDRAWN, 0)
            redis = protocol.listen(w.redis, me, declared)
            if declared:
                redis = protocol.set_present(redis, me, (p.nonce, True))
            w = update(w, me, client._replace(presence=p))._replace(redis=redis)
        return w

    # What happens to it.

    def faults(self, w: World, me: int, client: Client) -> Iterator[Step]:
        """Its listener is lost, and replies."""
        p = client.presence
        if not p:
            return
        deaf = w._replace(redis=protocol.listen(w.redis, me, False))
        if protocol.listened(w.redis, me):
            if client.mode != LATE and (paid := pay(deaf, "cut")):
                yield "fault", "its listener is cut", self._with(paid, me, self._unsubscribed(p, AWARE))
            if paid := pay(deaf, "half"):
                yield "fault", "its listener is cut, and it is not told", paid
        if client.mode == HELD and p.exposed and not p.overdue and (paid := pay(w, "overdue")):
            yield "fault", "its beat is overdue", self._with(paid, me, p._replace(overdue=True))
        if not (paid := pay(w, "loss")):
            return
        if p.declaring[:1] in ((SENT,), (ANSWERED,)):
            lost = self._with(paid, me, p._replace(declaring=(SILENT,)))
            lost = give_up(lost, me, "present", -1, (p.nonce,)) if p.declaring[0] == SENT else lost
            yield "fault", f"never gets the answer to its declaration, {p.declaring[0]}", lost
        if p.withdrawing:
            lost = self._with(paid, me, p._replace(withdrawing=()))
            lost = give_up(lost, me, "withdraw", -1, ()) if p.withdrawing[0] == SENT else lost
            yield "fault", f"gives up the withdrawal, {p.withdrawing[0]}", lost

    def closed(self, w: World, me: int, client: Client) -> World:
        """It is over with a client: what it has sent may be executed yet."""
        w = self._grace_over(w, me)
        if client.presence and client.presence.declaring[:1] == (SENT,):
            w = give_up(w, me, "present", -1, (client.presence.nonce,))
        return w

    def kept(self, w: World, me: int) -> bool:
        """Whether a lock does not expire within these bounds: somebody must depose this one."""
        dead = client_of(w, me).mode == CLOSED
        return self._bounds.patient and dead and protocol.declared_here(w.redis, me)

    def lapsed(self, client: Client) -> Client:
        """lock_state.lapse."""
        p = client.presence
        if not p:
            return client
        return client._replace(presence=self._outdated(p)._replace(suspect=(), overdue=False))

    def joins(self, w: World, me: int) -> World:
        """It takes its lock. A join of it that was given up before is not executed after this one."""
        return w._replace(stray=tuple(stray for stray in w.stray if stray[:2] != (me, "join")))

    def resumed(self, w: World, me: int) -> World:
        """It holds its lock again, and declares anew. What it has to withdraw is in doubt still.

        Taking the lock has withdrawn its declaration; but one that was under way may be executed after that.
        """
        p = client_of(w, me).presence
        if not p:
            return w
        w = give_up(w, me, "present", -1, (p.nonce,)) if p.declaring == (SENT,) else w
        p = p._replace(declared=WITHDRAWN, declaring=(), unanswered=p.exposed)
        if p.lost and self._mutation is Mutation.RESUME_ENDS_DOUBT:
            p = p._replace(lost="" if p.listens else TOLD)
        return self._with(w, me, p)

    def beats(self, w: World, client: Client, alive: bool) -> bool:
        """Whether a beat would tell it something."""
        p = client.presence
        ends = self._mutation is Mutation.BEAT_ENDS_DOUBT
        return not alive or p.overdue or (ends and p.lost == IN_DOUBT) if p else False

    def renewed(self, client: Client) -> Client:
        """A beat was answered: nobody had deposed this client until then."""
        p = client.presence
        if p:
            p = p._replace(overdue=False)
            if p.lost == IN_DOUBT and self._mutation is Mutation.BEAT_ENDS_DOUBT:
                p = p._replace(lost=TOLD)
        return client._replace(robbed=False, presence=p)

    def reconnected(self, client: Client, listened: bool) -> Client:
        """The server has failed over: what was not executed never will be; answers on their way arrive."""
        p = client.presence
        if not p:
            return client
        knew = AWARE if listened else UNAWARE
        p = self._unsubscribed(p, knew) if p.listens else p
        if p.declaring[:1] == (SENT,):
            p = p._replace(declaring=(SILENT,))
        if p.withdrawing[:1] == (SENT,):
            p = p._replace(withdrawing=())
        return client._replace(presence=p)

    def executed(self, w: World) -> World:
        """Redis has executed all that was sent."""
        for me, client in enumerate(w.clients, FIRST):
            for _, _, after in self.executions(w, me, client):
                return self.executed(after)
        return w

    def executions(self, w: World, me: int, client: Client) -> Iterator[Step]:
        """Redis executes what was sent."""
        p = client.presence
        if not p:
            return
        if p.declaring[:1] == (SENT,):
            redis, reply = self._run["present"](w.redis, me, p.nonce)
            after = self._with(w, me, p._replace(declaring=(ANSWERED, *reply)))
            yield "run", f"its declaration is executed: {reply[0]}", after._replace(redis=redis)
        if p.withdrawing[:1] == (SENT,):
            redis, reply = self._run["withdraw"](w.redis, me)
            after = self._with(w, me, p._replace(withdrawing=(ANSWERED, reply[0], p.withdrawing[2])))
            yield "run", f"its withdrawal is executed: {reply[0]}", after._replace(redis=redis)

    # What it does.

    def steps(self, w: World, me: int, client: Client) -> Iterator[Step]:
        """What it does by itself, and what time does."""
        p = client.presence
        if not p:
            return
        yield from self.executions(w, me, client)
        if p.lost in (AWARE, UNAWARE) and self._mutation is not Mutation.BELIEVES_UNSEEN:
            doubting = self._with(w, me, p._replace(lost=IN_DOUBT))
            yield "run", "half of its grace is over", self._grace_over(doubting, me)
        elif p.lost == AWARE:
            told = self._with(w, me, p._replace(lost=TOLD))
            yield "run", "half of its grace is over", self._grace_over(told, me)
        if p.listens and not protocol.listened(w.redis, me):
            yield "run", "notices that its listener is lost", self._with(w, me, self._unsubscribed(p, UNAWARE))
        if not p.listens:
            heard = w._replace(redis=protocol.listen(w.redis, me, True))
            yield "run", "subscribes again", self._with(heard, me, p._replace(listens=True))
        yield from self._declares(w, me, client, p)
        yield from self._withdraws(w, me, client, p)
        if client.holds and p.listens and p.declared == DECLARED and not p.lost:
            yield from self._watches(w, me, p)

    def _declares(self, w: World, me: int, client: Client, p: Presence) -> Iterator[Step]:
        if client.holds and p.listens and not p.lost and p.declared != DECLARED and not p.declaring:
            attempt = p._replace(declared=ATTEMPTED, nonce=p.nonce + 1, declaring=(SENT,))
            yield "run", f"declares its presence, {attempt.nonce}", self._with(w, me, attempt)
        declared = client.holds and p.listens and not p.lost and p.declared == DECLARED
        if declared and not p.declaring and (paid := pay(w, "again")):
            attempt = p._replace(nonce=p.nonce + 1, declaring=(SENT,))
            yield "fault", f"declares its presence anew, {attempt.nonce}", self._with(paid, me, attempt)
        match p.declaring:
            case ("answered", "present"):
                after = self._with(w, me, p._replace(declared=DECLARED, declaring=()))
                yield "run", "is declared", after
            case ("answered", "absent"):
                p = p._replace(declaring=())
                after = self._with(w, me, self._unsubscribed(p, UNAWARE) if p.listens else p)
                yield "run", "hears that it is absent, and subscribes anew", after
            case ("answered", "lapsed"):
                after = self._with(w, me, p._replace(declaring=()))
                yield "run", "hears that it has lapsed", self._missing(after, me) if client.mode == HELD else after
            case ("silent",):
                given_up = p._replace(declaring=(), unanswered=True)
                yield "patience", "has waited too long for its declaration", self._with(w, me, given_up)
            case _:
                pass

    def _withdraws(self, w: World, me: int, client: Client, p: Presence) -> Iterator[Step]:
        waits = p.declaring and self._mutation is Mutation.WITHDRAW_WAITS
        skips = p.declared == ATTEMPTED and self._mutation is Mutation.NOT_WITHDRAWN
        if client.mode == HELD and p.lost and not p.withdrawing and not waits and not skips:
            after = give_up(w, me, "present", -1, (p.nonce,)) if p.declaring == (SENT,) else w
            if p.declaring:  # nobody waits for it any more
                p = p._replace(declaring=(), unanswered=True)
            yield "run", "withdraws", self._with(after, me, p._replace(withdrawing=(SENT, 0, True)))
        if p.withdrawing[:1] == (ANSWERED,):
            _, there, ok = p.withdrawing
            if not (ok and client.mode == HELD):
                yield (
                    "run",
                    "gets an answer to its withdrawal that does not count",
                    self._with(w, me, p._replace(withdrawing=())),
                )
                return
            unanswered = p.unanswered and self._mutation is not Mutation.LATE_DECLARATION
            sure = p._replace(declared=WITHDRAWN, lost="", withdrawing=(), unanswered=unanswered)
            after = self._grace_over(self._with(w, me, sure), me)
            after = self._missing(after, me) if not there else after
            yield "run", "gets the answer to its withdrawal", after

    def _watches(self, w: World, me: int, p: Presence) -> Iterator[Step]:
        redis, reply = self._run["watch"](w.redis, me, p.nonce)
        if not self._bounds.tenure:
            redis = redis._replace(watch=UNOWNED)
        w = w._replace(redis=redis)
        match reply:
            case ("watching", _, *absent):
                for victim, nonce in absent:
                    if p.suspect[:2] != (victim, nonce):
                        aware = (v := client_of(w, victim).presence) and v.lost == AWARE
                        suspect = (victim, nonce, not aware)
                        yield "run", f"misses {name(victim)}", self._with(w, me, p._replace(suspect=suspect))
                if p.suspect and p.suspect[:2] not in absent:
                    yield "run", f"sees {name(p.suspect[0])} again", self._with(w, me, p._replace(suspect=()))
            case ("undeclared",):
                undeclared = p._replace(declared=ATTEMPTED, suspect=())  # an older one may be there
                yield "run", "looks, and hears that it is not declared", self._with(w, me, undeclared)
            case ("lapsed",):
                yield "run", "looks, and hears that it has lapsed", self._missing(w, me)
            case ("blind",):
                after = self._with(w, me, self._unsubscribed(p, UNAWARE))
                yield "run", "looks, and hears that nobody sees it", after
            case _:
                pass
        if p.suspect and p.suspect[2]:
            yield from self._deposes(w, me, p)

    def _deposes(self, w: World, me: int, p: Presence) -> Iterator[Step]:
        """It may have been sent long ago: who was suspected once stays so."""
        victim, nonce, _ = p.suspect
        redis, reply = self._run["depose"](w.redis, me, p.nonce, victim, nonce)
        after = self._with(w, me, p._replace(suspect=()))._replace(redis=redis)
        if reply and client_of(w, victim).mode != CLOSED and protocol.listened(w.redis, victim):
            after = after._replace(
                broken=w.broken or ("presence", "a member was deposed that is alive and connected")
            )
        yield "run", f"has missed {name(victim)} for all of its grace: {'deposed' if reply else 'not so'}", after

    def _unsubscribed(self, p: Presence, knew: str) -> Presence:
        """It lost its listener: it does not watch, and what it has declared it must withdraw."""
        if self._mutation is not Mutation.WITHDRAWN_BEFORE:
            p = self._outdated(p)
        exposed = p.exposed and not (p.declared == ATTEMPTED and self._mutation is Mutation.NOT_WITHDRAWN)
        if p.declared == WITHDRAWN and self._mutation is Mutation.LATE_WITHOUT_DOUBT:
            knew = TOLD
        return p._replace(listens=False, suspect=(), lost=p.lost or (knew if exposed else ""))

    def _outdated(self, p: Presence) -> Presence:
        """The answer to a withdrawal that is under way will not count."""
        return p._replace(withdrawing=p.withdrawing and (*p.withdrawing[:2], False))

    def _grace_over(self, w: World, me: int) -> World:
        """From now on nothing says that somebody who was seen absent has some of its grace left."""
        for other, client in enumerate(w.clients, FIRST):
            p = client.presence
            if p and p.suspect[:1] == (me,):
                w = self._with(w, other, p._replace(suspect=(*p.suspect[:2], True)))
        return w

    def _with(self, w: World, me: int, presence: Any) -> World:
        return update(w, me, client_of(w, me)._replace(presence=presence))
