"""The meaning of error replies, and of no reply. No other module looks at the errors of a server."""

import re
import ssl
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from redis import exceptions as redis_errors
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    InvalidResponse,
    RedisError,
    ResponseError,
)

from redis_stream_client._model.errors import RedisRejected

# Temporary refusals: the command was not executed, and may be accepted later.
_PASSING = {
    "LOADING",
    "BUSY",
    "OOM",
    "MISCONF",
    "READONLY",
    "MASTERDOWN",
    "NOREPLICAS",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "MOVED",
    "ASK",
    "UNBLOCKED",
}
# Of these, the ones that say that another server is responsible: connect anew, to the right one. Not ASK: it is
# about one key, whose slot is being moved; looking around finds nothing new until the word is MOVED.
_ELSEWHERE = {"READONLY", "MASTERDOWN", "MOVED", "CLUSTERDOWN"}
_LOGIN = {"NOAUTH", "WRONGPASS"}

# Errors without a code of their own are recognised by the beginning of their text. The rest may contain anything:
# the name of a key, of a user, or of a script.
_NO_GROUP = re.compile(r"no such key|The XGROUP subcommand requires the key to exist")
_NO_PERMISSION = re.compile(r"The user executing the script can't |ACL failure in script: ")
_ABOUT_KEY = re.compile(
    r"(?:this user has no|No) permissions to access (?:one of the keys|a key)"  # 6.2 and 7.0; 7.2 and later
    r"|The user executing the script can't access at least one of the keys"
    r"|ACL failure in script: No permissions to access a key"
    r"|(?:ACL failure in script: )?\S+ \S+ has no permissions to access the '"
)
_FULL = re.compile(r"max number of clients|command not allowed when used memory > 'maxmemory'")
_SLOT_LEFT = re.compile(  # a script reached for a key whose slot was just moving away
    r"(?:(?:lua )?script )?attempted to access a (?:non local key in a cluster node|slot not served)",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"unknown (?:sub)?command(?: or wrong number of arguments for)? ['`](?P<name>[^'`]*)['`]"
    r"(?:\. Try (?P<parent>\w+) HELP)?"
    r"|unknown (?:redis )?command called from (?:lua )?script",
    re.IGNORECASE,
)

# An error inside a script: Redis 6.2 puts its own words before it, later ones after it.
_BEFORE = re.compile(r"Error running script \(call to f_[0-9a-f]{40}\): @user_script:\d+: ")
_CALLED = re.compile(r"@user_script: ?\d+: -?")
_AFTER = re.compile(r" script: (?:[0-9a-f]{40}, )?on @user_script:\d+\.$")
_CODE = re.compile(r"(?!ACL failure)([A-Z][A-Z0-9]*)(?: |$)")

# redis-py removes some codes from the text. Before version 8 only the class of the exception tells them.
_CLASSES = tuple(
    (getattr(redis_errors, name), code)
    for name, code in (
        ("MovedError", "MOVED"),  # an AskError, too
        ("AskError", "ASK"),
        ("TryAgainError", "TRYAGAIN"),
        ("MasterDownError", "MASTERDOWN"),  # a ClusterDownError, too
        ("ClusterDownError", "CLUSTERDOWN"),
        ("ClusterCrossSlotError", "CROSSSLOT"),
        ("OutOfMemoryError", "OOM"),
        ("ReadOnlyError", "READONLY"),
        ("BusyLoadingError", "LOADING"),
        ("NoScriptError", "NOSCRIPT"),
        ("NoPermissionError", "NOPERM"),
        ("AuthenticationError", "WRONGPASS"),
        ("AuthorizationError", "NOAUTH"),
    )
    if hasattr(redis_errors, name)
)


class Unanswered(Exception):
    """No usable answer. It never leaves the package.

    Attributes:
        maybe_executed: whether Redis may have executed the command, or may still do so.
        elsewhere: whether another server is responsible now.
    """

    def __init__(self, message: str, *, maybe_executed: bool, elsewhere: bool = False) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed
        self.elsewhere = elsewhere


class GroupMissing(Exception):
    """The load balancer stream or its consumer group does not exist. It never leaves the package."""


class KeyRejected(RedisRejected, shown_as=RedisRejected):
    """Redis refuses this key. It may accept the same command for another key."""


class WrongType(KeyRejected, shown_as=RedisRejected):
    """The key holds another type of value than the command needs."""


def map_reply(error: Exception) -> Unanswered | GroupMissing | RedisRejected:
    """The meaning of an error reply: by its code, or, without a code, by the beginning of its text."""
    code, text = read(error)
    fault = _of_code(code, text)
    fault.__cause__ = bare(error)
    return fault


def _of_code(code: str, text: str) -> Unanswered | GroupMissing | RedisRejected:
    said = text if code == "ERR" else f"{code} {text}".rstrip()
    if code == "NOGROUP" or (code == "UNBLOCKED" and "no longer exists" in text):
        return GroupMissing(said)
    if code == "UNBLOCKED" and "instance state changed" in text:  # by a failover: this one is a replica now
        return Unanswered(said, maybe_executed=False, elsewhere=True)
    if code in _PASSING:
        return Unanswered(said, maybe_executed=False, elsewhere=code in _ELSEWHERE)
    if code == "WRONGTYPE":
        return WrongType(
            f"a key of this service holds another type of value: {said}",
            hint="the load balancer stream and the dead letters must be streams, the announced ones a hash",
        )
    if code in _LOGIN:
        return _login_refused("Redis", text)
    if _is_permission(code, text):
        about_key = _ABOUT_KEY.match(text)
        return (KeyRejected if about_key else RedisRejected)(
            f"Redis does not permit what this client needs: {text}",
            hint="see the ACL rule in operations/permissions in the documentation",
        )
    if code == "NOPROTO":
        return RedisRejected(f"Redis refuses: {said}", hint="create the redis-py client with protocol=2")
    return _of_text(text) if code == "ERR" else RedisRejected(f"Redis refuses: {said}")


def _of_text(text: str) -> Unanswered | GroupMissing | RedisRejected:
    """The meaning of an error without a code of its own."""
    if _NO_GROUP.match(text):
        return GroupMissing(text)
    if _FULL.match(text):
        return Unanswered(text, maybe_executed=False)
    if _SLOT_LEFT.match(text):
        return Unanswered(text, maybe_executed=True, elsewhere=True)
    if unknown := _UNKNOWN.match(text):
        return _lacking(text, f"{unknown['parent'] or ''} {unknown['name'] or ''}".strip().upper())
    return RedisRejected(f"Redis refuses: {text}")


def _lacking(text: str, name: str) -> RedisRejected:
    """The server lacks a command: it is too old, or the command is disabled or renamed."""
    if not name:
        return RedisRejected(
            f"the server lacks a command: {text}",
            hint="Redis 6.2 or later is needed, with no command disabled or renamed that"
            " operations/permissions in the documentation lists",
        )
    if name.startswith("X"):  # Redis 5 brought streams, and 6.2 the last of what is needed
        hint = f"Redis 6.2 or later is needed, with {name} neither disabled nor renamed"
    else:
        hint = f"{name} is disabled or renamed there (rename-command, a proxy, a managed service)"
    return RedisRejected(f"the server lacks a command: {text}", hint=hint)


def map_probe(failed: Sequence[tuple[str, str]]) -> RedisRejected | None:
    """The error for commands that cannot be used at all, from their names and errors; None if all can be used."""
    refused: defaultdict[str, list[str]] = defaultdict(list)
    for command, reply in failed:
        code, text = read(ResponseError(reply))
        if code == "WRONGTYPE" or _is_permission(code, text):
            refused["WRONGTYPE" if code == "WRONGTYPE" else "NOPERM"].append(f"{command}: {text}")
        elif _UNKNOWN.match(text):
            refused["unknown"].append(command)
    for code, what in refused.items():
        lacking = code == "unknown"
        fault = _lacking(", ".join(what), what[0]) if lacking else _of_code(code, "; ".join(what))
        if isinstance(fault, RedisRejected):
            return fault
    return None


def map_error(error: Exception, where: str = "Redis") -> Unanswered | GroupMissing | RedisRejected:
    """The meaning of an error in connecting, writing or reading."""
    fault: Unanswered | GroupMissing | RedisRejected
    if isinstance(error, AuthenticationError | AuthorizationError):
        fault = _login_refused(where, str(error))
    elif is_reply(error):
        return map_reply(error)
    elif isinstance(error, InvalidResponse) or str(error).startswith(("Protocol error", "Protocol Error")):
        fault = RedisRejected(f"{where} does not speak the Redis protocol: {one_line(error)}")
    elif isinstance(_root(error), ssl.SSLCertVerificationError):
        fault = RedisRejected(f"the certificate of {where} cannot be verified: {one_line(error)}")
    else:
        why = _why(error)
        fault = Unanswered(why if where in why else f"{where}: {why}", maybe_executed=True)
    fault.__cause__ = bare(error)
    return fault


def _why(error: Exception) -> str:
    """The error in one line. It may be anything, since a credential provider of the user may raise it."""
    if isinstance(error, RedisError | OSError | EOFError):
        return one_line(error) or "no answer in time"
    return f"{type(error).__name__}: {one_line(error)}"


def is_reply(error: BaseException) -> bool:
    """Whether the server has sent this error. redis-py turns some replies into a `ConnectionError`."""
    if isinstance(error, ResponseError | redis_errors.BusyLoadingError):
        return True
    told = getattr(error, "status_code", None) is not None or str(error) == "max number of clients reached"
    return isinstance(error, redis_errors.ConnectionError) and told


def is_withheld(error: BaseException | None) -> bool:
    """Whether the server withholds a command or a key: a permission is missing, or the command is renamed."""
    if not isinstance(error, ResponseError):
        return False
    code, text = read(error)
    return _is_permission(code, text) or (code == "ERR" and _UNKNOWN.match(text) is not None)


def _is_permission(code: str, text: str) -> bool:
    return code == "NOPERM" or (code == "ERR" and _NO_PERMISSION.match(text) is not None)


def _login_refused(where: str, text: str) -> RedisRejected:
    return RedisRejected(
        f"{where} refuses the login: {text or 'wrong user name or password'}",
        hint="check user name and password",
    )


def read(error: Exception) -> tuple[str, str]:
    """The code of an error reply (``ERR`` if it has no code of its own), and its text."""
    text = _AFTER.sub("", one_line(error))
    code: Any = getattr(error, "status_code", None)
    if not isinstance(code, str):
        code = next((code for kind, code in _CLASSES if isinstance(error, kind)), None)
    if code is None:
        code, text = _split(text)
    elif text.startswith(f"{code} "):
        text = text[len(code) + 1 :]
    if code == "ERR":
        called = _BEFORE.match(text)
        inner = text[called.end() :] if called else text
        passed_on = _CALLED.match(inner)
        if called or passed_on:
            return _split(inner[passed_on.end() :] if passed_on else inner)
    return code, text


def _split(text: str) -> tuple[str, str]:
    found = _CODE.match(text)
    return (found[1], text[found.end() :]) if found else ("ERR", text)


def one_line(error: BaseException) -> str:
    """The text of an error in one line."""
    return " ".join(str(error).split())


def bare(error: BaseException) -> BaseException:
    """The error without its traceback and its causes, which would only show the inside of redis-py and asyncio.

    Python prints it in one line above our error; its text names the cause. An error of the user's code keeps its
    traceback.
    """
    if not isinstance(error, RedisError | OSError | EOFError):
        return error
    error.__cause__ = None
    error.__suppress_context__ = True
    return error.with_traceback(None)


def origin(fault: BaseException) -> BaseException | None:
    """The cause for an error of ours: an error of redis-py or of the system, and never a private one of this
    package."""
    cause: BaseException | None = fault
    while isinstance(cause, Unanswered | GroupMissing | RedisRejected):
        cause = cause.__cause__
    return None if cause is None else bare(cause)


def _root(error: BaseException) -> BaseException:
    """The innermost cause that is known."""
    seen = {id(error)}
    while (cause := error.__cause__ or error.__context__) is not None and id(cause) not in seen:
        seen.add(id(cause))
        error = cause
    return error
