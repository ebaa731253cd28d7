"""ServeConfig and run(): `jaxtrain serve FOLDER`."""

import time
from dataclasses import dataclass
from pathlib import Path

import jax

from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count
from jaxtrain.runtime.progress import say
from jaxtrain.serve.engine import Engine, Held


@dataclass(frozen=True, kw_only=True)
class ServeConfig(Held):
    """Serve a model: a chat page and OpenAI's endpoints."""

    host: str = "127.0.0.1"
    """Address to listen at; anything but loopback needs `api_key_file`."""
    port: int = 8000
    """0: a free one."""
    api_key_file: str = ""
    """File with the key that clients send as a bearer token; empty: none is asked for."""
    hosts: tuple[str, ...] = ()
    """Names that the server is reached by, beside those of this machine; `*`: any."""
    rows: Count = 8
    """Requests decoded side by side."""
    queue: int = 64
    """Requests that may wait; more are answered with status 429."""
    max_length: int = 0
    """Tokens of prompt and answer together; 0: the model's."""
    grace: float = 10.0
    """Seconds that answers under way have when the server is told to end."""
    guess: bool = True
    """Guess tokens that stood in a row before, while that is faster; what is said stays the same."""


def run(config: ServeConfig) -> None:
    """Serve until SIGTERM or Ctrl-C; answers under way may then end."""
    import uvicorn

    from jaxtrain.runtime import web
    from jaxtrain.serve.app import ServeApp

    key = _api_key(config)
    with web.listen(config.host, config.port) as listening:
        with jax.set_mesh(meshes.make(config.mesh)):
            engine = Engine(
                config.model,
                rows=config.rows,
                max_length=config.max_length,
                max_new=config.max_new,
                queue=config.queue,
                dtype=config.dtype,
                held=config.weights,
                guess=config.guess,
            )
        begun = time.monotonic()
        engine.warm_up()
        say(f"serve: {engine.name}, compiled in {time.monotonic() - begun:.0f} s")
        app = ServeApp(engine, api_key=key, hosts=(*web.LOOPBACK, config.host, *config.hosts))
        settings = web.settings(app.asgi, timeout_graceful_shutdown=max(1, round(config.grace)))
        host = f"[{config.host}]" if ":" in config.host else config.host
        at = f"{host}:{listening.getsockname()[1]}"
        say(f"serve: chat at http://{at}/, OpenAI's endpoints under /v1")
        uvicorn.Server(settings).run(sockets=[listening])


def _api_key(config: ServeConfig) -> str | None:
    if not config.api_key_file:
        if config.host not in ("127.0.0.1", "::1", "localhost"):
            open_to = f"host {config.host} can be reached from other machines"
            raise UserError(f"{open_to}: name an api_key_file, or serve at 127.0.0.1")
        return None
    path = Path(config.api_key_file)
    if not path.is_file():
        raise UserError(f"api_key_file {path} does not exist; write a long random text into it")
    key = path.read_text().strip()
    if len(key) < 16 or not key.isascii():
        raise UserError(f"{path}: a key is at least 16 ASCII characters")
    return key
