"""Run the server."""

import argparse
import gc
import signal
import sys

import uvicorn

from src.commands.output import EXIT_UNAVAILABLE, fail
from src.config import Settings
from src.utils.garbage import reduce_collections
from src.utils.sockets import listening_socket
from src.web.http_protocol import HttpProtocol


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = commands.add_parser("serve", help="run the server on HOST and PORT")
    serve.set_defaults(run=_serve)


def _serve(settings: Settings, _options: argparse.Namespace) -> int:
    # After its shutdown Uvicorn raises the signal that stopped it again. Exit with 0 then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        "src.main:app",
        loop="uvloop",
        http=HttpProtocol,
        log_config=None,
        access_log=False,
        # The application evaluates X-Forwarded-For itself, by TRUSTED_PROXIES.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=settings.SHUTDOWN_GRACE_SECONDS,
    )
    try:
        listener = listening_socket(settings.HOST, settings.PORT)
    except OSError as error:
        return fail(
            EXIT_UNAVAILABLE,
            f"HOST and PORT: cannot listen on {settings.HOST}:{settings.PORT}: {error}",
        )
    # Imports leave no garbage to collect.
    gc.disable()
    config.load()
    reduce_collections()
    gc.enable()
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else EXIT_UNAVAILABLE
