"""What a reply, or its absence, means. Server errors are told apart here and nowhere else."""

import re
import ssl

from redis.exceptions import AuthenticationError, AuthorizationError, InvalidResponse, ResponseError

from redis_stream_client.errors import RedisRejected

# Refusals that pass: the command was not executed, and the same command may be accepted later.
_PASSING = (
    "LOADING",
    "BUSY",
    "OOM",
    "maxmemory",  # 6.2 leaves the code out in a script's error
    "MISCONF",
    "READONLY",
    "MASTERDOWN",
    "NOREPLICAS",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "MOVED",
    "ASK",
    "max number of clients",
)
# Of these, the ones that say that another server is responsible: connect anew, to the right one.
_ELSEWHERE = ("READONLY", "MASTERDOWN", "MOVED", "ASK", "CLUSTERDOWN")
_NO_GROUP = ("NOGROUP", "UNBLOCKED", "no such key", "requires the key to exist")
_NO_PERMISSION = ("NOPERM", "no permissions", "ACL failure", "The user executing the script can't")
_ABOUT_KEY = ("access one of the keys", "access at least one of the keys", "to access the '", "access a key")


class Unanswered(Exception):
    """No usable answer. It never leaves the package.

    Attributes:
        maybe_executed: whether Redis may have executed the command, or may yet.
        elsewhere: whether another server is responsible now.
    """

    def __init__(self, message: str, *, maybe_executed: bool, elsewhere: bool = False) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed
        self.elsewhere = elsewhere


class GroupMissing(Exception):
    """The load balancer stream or its consumer group does not exist. It never leaves the package."""


class KeyRejected(RedisRejected):
    """One key cannot be used; with others the same command may be accepted."""


class WrongType(KeyRejected):
    """A key holds another type of value than the command is for."""


def of_reply(error: ResponseError) -> Unanswered | GroupMissing | RedisRejected:
    """What an error reply means. In a script's error the code may stand anywhere in the text."""
    text = f"{getattr(error, 'status_code', None) or ''} {error}".strip()
    fault: Unanswered | GroupMissing | RedisRejected
    passing = next((code for code in _PASSING if re.search(rf"\b{code}\b", text)), None)
    if any(code in text for code in _NO_GROUP):
        fault = GroupMissing(text)
    elif any(code in text for code in _NO_PERMISSION):
        about_key = any(word in text for word in _ABOUT_KEY)
        fault = (KeyRejected if about_key else RedisRejected)(
            f"Redis does not permit what this client needs: {error}",
            hint="the README lists the ACL rule",
        )
    elif "WRONGTYPE" in text:
        fault = WrongType(
            f"a key of this service holds another type of value: {error}",
            hint="the load balancer stream and the dead letters must be streams",
        )
    elif passing:
        fault = Unanswered(text, maybe_executed=False, elsewhere=passing in _ELSEWHERE)
    elif "unknown command" in text.lower() or "unknown subcommand" in text.lower():
        fault = RedisRejected(f"the server lacks a command: {error}", hint="Redis 6.2 or later is needed")
    else:
        fault = RedisRejected(f"Redis refuses: {error}")
    fault.__cause__ = error
    return fault


def of(error: Exception, where: str = "Redis") -> Unanswered | GroupMissing | RedisRejected:
    """What connecting, writing or reading raised means."""
    if isinstance(error, ResponseError):
        return of_reply(error)
    fault: Unanswered | RedisRejected
    if isinstance(error, AuthenticationError | AuthorizationError):
        fault = RedisRejected(
            f"{where} refuses the login: {str(error) or 'wrong user name or password'}",
            hint="check user name and password",
        )
    elif isinstance(error, InvalidResponse) or "Protocol error" in str(error):
        fault = RedisRejected(f"{where} does not speak the Redis protocol: {error}")
    elif isinstance(_root(error), ssl.SSLCertVerificationError):
        fault = RedisRejected(f"the certificate of {where} cannot be verified: {error}")
    else:
        fault = Unanswered(f"{where}: {str(error) or 'no answer in time'}", maybe_executed=True)
    fault.__cause__ = error
    return fault


def _root(error: BaseException) -> BaseException:
    """The innermost cause that is known."""
    seen = {id(error)}
    while (cause := error.__cause__ or error.__context__) is not None and id(cause) not in seen:
        seen.add(id(cause))
        error = cause
    return error
