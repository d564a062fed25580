"""A web application that is a member of a fleet as long as it serves: FastAPI, with the client in its lifespan.

    pip install fastapi uvicorn
    REDIS_URL=redis://localhost SERVICE=calls uvicorn examples.web:app

    curl -X POST localhost:8000/calls/17 -H "Content-Type: application/json" -d '{"text": "hello"}'
    curl localhost:8000/calls/17

Run several behind a load balancer: any of them takes the requests, one of them owns the call. When a server is
stopped, its calls go to the others before it exits.
"""

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Path, Response
from redis.asyncio import Redis

from redis_stream_client import Lease, LoadBalancerStream, RedisStreamClient, RedisStreamClientError

SERVICE = os.environ.get("SERVICE", "calls")

# None of these connects before it is used.
redis = Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost"), decode_responses=True)
client = RedisStreamClient(redis, SERVICE)
announcements = LoadBalancerStream(redis, SERVICE)


async def handle(lease: Lease) -> None:
    """Answer what is said in one call, until it ends."""
    async for entry in lease.entries():
        said = entry.text()
        # Stored by the entry's id: if we die before the checkpoint, our successor overwrites it with the same.
        await redis.hset(f"{lease.stream}:answers", entry.id, said["text"].upper())
        if said["type"] == "end":
            return
        await lease.checkpoint(entry.id)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
    """Join before the first request; drain after the last one."""
    async with redis:
        try:
            async with client.running(handle):
                yield
        except RedisStreamClientError:  # Redis refuses for good. Left alone, the server would go on without us
            signal.raise_signal(signal.SIGTERM)
            raise


app = FastAPI(lifespan=lifespan)
Name = Annotated[str, Path(pattern=r"^[\w.-]{1,100}$")]  # it becomes part of a key


@app.post("/calls/{name}", status_code=202)
async def say(name: Name, text: Annotated[str, Body()], last: Annotated[bool, Body()] = False) -> dict[str, Any]:
    """Say something in a call. What is said first also announces it."""
    stream = f"{SERVICE}:{name}"
    if not await redis.exists(stream):
        # First, so that nothing lies there unannounced. Two requests may both come here: it has one owner still.
        await announcements.add(stream)
    return {"id": await redis.xadd(stream, {"text": text, "type": "end" if last else "text"})}


@app.get("/calls/{name}")
async def answers(name: Name) -> dict[Any, Any]:
    """What was answered so far, by the ids of what was said, whichever server did it."""
    found = await redis.hgetall(f"{SERVICE}:{name}:answers")
    if not found:
        raise HTTPException(404, "no answers yet")
    return found


@app.get("/health")
async def health(response: Response) -> dict[str, int]:
    """A readiness probe. Not for liveness: when Redis is away no server is alive, and restarts would not help."""
    response.status_code = 200 if client.alive else 503
    return {"calls": len(client.leases)}
