"""The client: litellm as a library, one call per request."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from functools import cache
from typing import Any

from m3i.ledger.request import CallError, ModelRequest, Reply, Stop, Usage
from m3i.llm.sdk import connect_s, in_time

from .failures import call_error
from .keys import is_local, named_variables
from .messages import call_arguments, read_response

NO_KEY = "none"
"""Sent to your own server if no variable holds a key: some of litellm's clients refuse to run without one."""

_open = 0
_lock = threading.Lock()


@cache
def sdk() -> Any:
    """The module litellm, imported on first use and silenced: it fetches, caches, retries and logs nothing."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it downloads a price table
    os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"  # the same for a table of headers
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # else it reads keys from a file .env in the current folder
    _silence()
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.drop_params = False  # an option that the model does not take is an error
    litellm.modify_params = False
    litellm.num_retries = 0
    litellm.cache = None
    litellm.disable_aiohttp_transport = True  # httpx tells whether a broken connection had been established
    for callbacks in (litellm.callbacks, litellm.input_callback, litellm.success_callback, litellm.failure_callback):
        callbacks.clear()
    _silence()  # again: the import gives its loggers handlers that write to the terminal
    return litellm


def _silence() -> None:
    """Keeps litellm's own logs off the terminal and out of log files: they would show whole requests."""
    for name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.CRITICAL)


class LiteLLMProvider:
    """Sends requests through litellm; keys and its other settings come from the provider's environment variables."""

    name = "litellm"

    def __init__(self) -> None:
        self._used = False

    async def load_client(self) -> None:
        """Imports the SDK without holding up calls in flight."""
        await asyncio.to_thread(sdk)

    async def send(self, request: ModelRequest, *, timeout_s: float) -> Reply:
        """Requests one completion."""
        litellm = await asyncio.to_thread(sdk)
        self._begin()
        try:
            async with in_time("litellm", timeout_s):
                response = await litellm.acompletion(**self._arguments(request, timeout_s))
            return read_response(response)
        except CallError:
            raise
        except litellm.ContentPolicyViolationError:
            return Reply(text="", stop=Stop.REFUSAL, usage=Usage(), model=request.model)
        except Exception as error:
            # `from None`: litellm's chain of errors holds whole requests
            raise call_error(error, request.model) from None

    def _arguments(self, request: ModelRequest, timeout_s: float) -> dict[str, Any]:
        import httpx

        arguments = call_arguments(request)
        base = request.options.get("api_base")
        keys = named_variables(request.model)
        if base is not None and is_local(base) and not any(os.environ.get(name, "").strip() for name in keys):
            arguments["api_key"] = NO_KEY
        arguments["timeout"] = httpx.Timeout(timeout_s, connect=connect_s(timeout_s))
        return arguments

    def _begin(self) -> None:
        global _open
        if not self._used:
            self._used = True
            with _lock:
                _open += 1

    async def aclose(self) -> None:
        """Closes connections. litellm shares them among all callers, so the last client in use closes them."""
        global _open
        if not self._used:
            return
        self._used = False
        with _lock:
            _open -= 1
            last = _open == 0
        if last:
            litellm = sdk()
            await litellm.close_litellm_async_clients()
            litellm.in_memory_llm_clients_cache.flush_cache()
