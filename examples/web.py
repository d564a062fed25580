"""A web application that is a member of a fleet as long as it serves: FastAPI, with the client in its lifespan.

    pip install fastapi uvicorn
    REDIS_URL=redis://localhost SERVICE=chats uvicorn examples.web:app

    curl -X POST localhost:8000/chats/17 -H "Content-Type: application/json" -d '{"text": "hello"}'
    curl localhost:8000/chats/17

Run several behind a load balancer: any of them takes the requests, one of them owns the chat. When a server is
stopped, its chats go to the others before it exits. A chat in which nobody says anything falls asleep, and has no
owner; what is said next wakes it, on any server.
"""

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Path, Response
from redis.asyncio import Redis

from redis_stream_client import Lease, LoadBalancerStream, RedisStreamClient, RedisStreamClientError

SERVICE = os.environ.get("SERVICE", "chats")
IDLE = float(os.environ.get("IDLE", "600"))  # seconds

# None of these connects before it is used.
redis = Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost"), decode_responses=True)
client = RedisStreamClient(redis, SERVICE)
chats = LoadBalancerStream(redis, SERVICE)


async def handle(lease: Lease) -> None:
    """Answer what is said in one chat, until it falls asleep."""
    async for entry in lease.entries(idle=IDLE):
        # Stored by the entry's id: if we die before the checkpoint, our successor overwrites it with the same.
        await redis.hset(f"{lease.stream}:answers", entry.id, entry.text()["text"].upper())
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


@app.post("/chats/{name}", status_code=202)
async def say(name: Name, text: Annotated[str, Body(embed=True)]) -> dict[str, str]:
    """Say something in a chat. If it sleeps, or is new, that wakes it."""
    return {"id": await chats.write(f"{SERVICE}:{name}", {"text": text})}


@app.get("/chats/{name}")
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
    return {"awake": len(client.leases)}
