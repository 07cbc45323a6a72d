"""`python -m tests.wire --port 0 --print-port`: the server on its own, until it is ended."""

from __future__ import annotations

import argparse
import threading

from tests.wire.minds import MINDS
from tests.wire.server import MODELS, WireServer


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m tests.wire", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--print-port", action="store_true", help="print the port, and nothing else")
    parser.add_argument("--mind", choices=sorted(MINDS), default="honest")
    parser.add_argument("--model", action="append", help="shell pattern of an accepted model id; may be repeated")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds each answer takes")
    given = parser.parse_args()
    models = tuple(given.model) if given.model else MODELS
    with WireServer(mind=given.mind, models=models, port=given.port) as server:
        server.delay_s = given.delay
        if given.print_port:
            print(server.port, flush=True)
        else:
            for name, value in server.environment().items():
                print(f"export {name}={value}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
