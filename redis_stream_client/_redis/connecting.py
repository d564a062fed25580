"""Opening one connection: host name, credentials, TCP, TLS, and the first commands of redis-py.

The resolver and the credential provider of the user may be slow. So each of them is asked before the attempt, once
for all who connect at the time, and the answer is kept for the next attempt if this one runs out of time.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from redis_stream_client._concurrency import clock
from redis_stream_client._model.errors import RedisRejected
from redis_stream_client._redis import error_mapping, redis_py, settings, wire
from redis_stream_client._redis.error_mapping import Unanswered
from redis_stream_client._redis.lookups import Lookup, in_thread
from redis_stream_client._redis.resolver import Resolver

_LOGIN = ("WRONGPASS", "NOAUTH")


class Connector:
    """Opens connections of the user's connection class with the user's settings.

    Args:
        connection_class: a connection class of redis-py or of the user.
        user_settings: the settings of the user's client.
    """

    def __init__(self, connection_class: type[AbstractConnection], user_settings: Mapping[str, Any]) -> None:
        self.connection_class = connection_class
        self.settings = settings.own(user_settings)
        self._name = user_settings.get("client_name")
        self._nameless = False  # Redis refuses names
        self._resolver = Resolver()
        self._provider: Any = self.settings.get("credential_provider")
        self._credentials: Lookup[Any] | None = None
        if self._provider is not None and not isinstance(self._provider, UsernamePasswordCredentialProvider):
            self._credentials = Lookup("credentials", _asking(self._provider))

    @property
    def db(self) -> int:
        """Index of the database."""
        return int(self.settings.get("db") or 0)

    async def open(self, timeout: float, role: str = "", **aim: Any) -> AbstractConnection:
        """Connect within `timeout` seconds.

        Args:
            timeout: seconds for everything together.
            role: the purpose of the connection; ``CLIENT LIST`` shows it.
            aim: settings that replace those of the user, such as ``host`` and ``port``.

        Raises:
            Unanswered: no connection. If code of the user raised, its error is the cause.
            RedisRejected: Redis refuses a fixed password, or the certificate cannot be verified.
        """
        wanted = {**self.settings, **aim}
        where = address_of(wanted)
        task = asyncio.current_task()
        assert task is not None
        deadline = asyncio.timeout(timeout)
        try:
            async with deadline:
                return await self._open(wanted, clock.now() + timeout, role)
        except (Unanswered, RedisRejected) as fault:
            if isinstance(fault, Unanswered):
                fault.maybe_executed = False
            raise
        except asyncio.CancelledError as error:
            if task.cancelling():
                raise
            raise Unanswered(f"connecting to {where} was cancelled by itself", maybe_executed=False) from error
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - user code may raise anything
            if deadline.expired():
                raise Unanswered(
                    f"no connection to {where} within {timeout:.3g} s", maybe_executed=False
                ) from None
            meaning = self._fault(error, where)
            raise meaning from meaning.__cause__

    async def _open(self, wanted: dict[str, Any], until: float, role: str) -> AbstractConnection:
        if self._credentials is not None:
            wanted["credential_provider"] = _Obtained(self._provider, await self._credentials.get())
        if not redis_py.has_address(self.connection_class):  # a socket's path
            return await self._connect(wanted, role, None)
        host = str(wanted.get("host") or "localhost")
        try:
            addresses = await self._resolver.addresses(host)
        except OSError:
            if self.connection_class.__module__.partition(".")[0] == "redis":
                raise
            return await self._connect(wanted, role, None)  # the user's class may know where that is
        for i, address in enumerate(addresses):
            left = len(addresses) - i
            try:
                async with asyncio.timeout(None if left == 1 else max(0.0, until - clock.now()) / left):
                    connection = await self._connect(wanted, role, (host, address))
                self._resolver.reached(host, address)
                return connection
            except (RedisError, OSError) as error:
                if isinstance(error, ResponseError | AuthenticationError | AuthorizationError):
                    raise
                self._resolver.failed(host, address)
                if left == 1:
                    raise
        raise OSError(f"{host} has no address")

    async def _connect(
        self, wanted: Mapping[str, Any], role: str, aim: tuple[str, str] | None
    ) -> AbstractConnection:
        connection = self.connection_class(**wanted)
        try:
            with contextlib.nullcontext() if aim is None else redis_py.aimed(connection, *aim):
                await connection.connect()  # type: ignore[no-untyped-call]
            await self._introduce(connection, role)
        except BaseException:
            wire.abort(connection)
            raise
        return connection

    def doubt(self, host: str | None = None) -> None:
        """Note that the server last reached under this name may be the wrong one."""
        self._resolver.doubt(host or str(self.settings.get("host") or "localhost"))

    async def _introduce(self, connection: AbstractConnection, role: str) -> None:
        """Name the connection in Redis, as part of the attempt. If that is not permitted, go on without a name."""
        name = settings.client_name(self._name, role)
        if name is None or self._nameless:
            return
        try:
            await wire.roundtrip(connection, None, "CLIENT", "SETNAME", name)
        except RedisRejected as error:
            why = error_mapping.origin(error)
            if why is not None and _is_refused_login(why):  # the provider gave nothing to log in with
                raise why from None
            self._nameless = True

    def _fault(self, error: BaseException, where: str) -> Exception:
        """The meaning of an error in connecting. Its cause is the first error."""
        cause = _cause(error)
        fault = self._meaning(error, cause, where)
        fault.__cause__ = error_mapping.bare(cause)
        return fault

    def _meaning(self, error: BaseException, cause: BaseException, where: str) -> Exception:
        if self._credentials is not None and _is_refused_login(error):
            self._credentials.doubt()  # the token may have expired; the next one may be accepted
            return Unanswered(f"{where} refuses what the credential provider said: {error}", maybe_executed=False)
        if isinstance(error, RedisError | OSError):
            fault = error_mapping.map_error(error, where)
            if not isinstance(fault, Unanswered):
                return fault
            if isinstance(cause, OSError) and cause.errno and isinstance(cause.strerror, str):
                known = os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
                return Unanswered(f"cannot connect to {where}: {known}", maybe_executed=False)
            if isinstance(cause, RedisError | OSError):
                fault.maybe_executed = False
                return fault
        return Unanswered(f"cannot connect to {where}: {describe(cause)}", maybe_executed=False)


class _Obtained:
    """A credential provider that repeats an answer which the user's provider has given already."""

    def __init__(self, provider: Any, credentials: Any) -> None:
        self._provider = provider
        self._credentials = credentials

    def get_credentials(self) -> Any:
        return self._credentials

    async def get_credentials_async(self) -> Any:
        return self._credentials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)


def _asking(provider: Any) -> Callable[[], Any]:
    """How to ask a provider. One without asyncio blocks a thread, and not the event loop."""
    inherited = getattr(CredentialProvider, "get_credentials_async", None)  # redis-py 5.3 and later
    own = getattr(type(provider), "get_credentials_async", None)
    if own is None or own is inherited:
        return lambda: in_thread(provider.get_credentials, "redis_stream_client credentials")
    asking: Callable[[], Any] = provider.get_credentials_async
    return asking


def _cause(error: BaseException) -> BaseException:
    """The error that redis-py has wrapped."""
    while isinstance(error, RedisError):
        cause = error.__cause__ or error.__context__
        if cause is None or isinstance(cause, Unanswered | RedisRejected | asyncio.CancelledError):
            break  # an exception that a caller of ours handles is no cause
        error = cause
    return error


def _is_refused_login(error: BaseException) -> bool:
    if isinstance(error, AuthenticationError | AuthorizationError):
        return True
    return (
        isinstance(error, RedisError) and error_mapping.is_reply(error) and error_mapping.read(error)[0] in _LOGIN
    )


def address_of(wanted: Mapping[str, Any]) -> str:
    """The address of a server, for messages."""
    return str(wanted.get("path") or f"{wanted.get('host', 'localhost')}:{wanted.get('port', 6379)}")


def describe(error: BaseException) -> str:
    """An exception of user code in one line, even if its ``str()`` fails."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - it is not ours
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
