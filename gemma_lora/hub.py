"""The hub: no wait without an end, and one line for whatever its libraries raise."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from gemma_lora.cli import UserError


def bound_hub_waits() -> None:
    """Let no request to the hub wait for ever: its library asks for some lists without a limit."""
    from huggingface_hub import get_session
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT

    def limit(request: Any) -> None:
        given = request.extensions.get("timeout") or {}
        waits = ("connect", "read", "write", "pool")  # seconds without a byte, each
        request.extensions["timeout"] = {k: given.get(k) or HF_HUB_ETAG_TIMEOUT for k in waits}

    session = get_session()
    hooks = session.event_hooks
    session.event_hooks = {**hooks, "request": [*hooks["request"], limit]}


def explain_hub_error(
    error: Exception, name: str, offline: str, not_found: tuple[type[Exception], ...] = ()
) -> UserError:
    """One line for whatever the hub's libraries raised about `name`; `offline` is the way out.

    `not_found` are what other libraries raise for a name that the hub does not know.
    """
    from huggingface_hub import errors

    # The hub's own base class tells which copy of httpx it speaks through.
    transport = importlib.import_module(errors.HTTPError.__module__.split(".")[0])
    causes = list(causes_of(error))
    responses = [getattr(cause, "response", None) for cause in causes]
    status = next((r.status_code for r in responses if r is not None), None)

    def raised(*classes: type[Exception]) -> bool:
        return any(isinstance(cause, classes) for cause in causes)

    gate = "log in at the hub, accept the licence on its page, put HF_TOKEN in .env and try again"
    # The datasets library says in words only that a set is gated.
    if raised(errors.GatedRepoError) or status == 403 or "gated dataset" in str(error):
        return UserError(f"'{name}' is gated: {gate}; or without the hub: {offline}")
    if status == 401 and not raised(errors.RepositoryNotFoundError):
        return UserError(f"the hub refused the token for '{name}': {gate}; or {offline}")
    if raised(errors.RepositoryNotFoundError, *not_found) and status not in (429, 500):
        return UserError(
            f"'{name}' was not found on the hub (or is private, or needs a token): check the "
            f"spelling and HF_TOKEN in .env; or without the hub: {offline}"
        )
    if status == 429:
        return UserError(f"the hub is limiting requests for '{name}': wait, then try again")
    if status is not None and status >= 500:
        return UserError(f"the hub failed ({status}) for '{name}': try again later, or {offline}")
    # A file of another length than promised has no class of its own.
    short = "Consistency check" in str(error)
    if raised(transport.RemoteProtocolError, transport.ReadError) or short:
        return UserError(f"the download of '{name}' broke off: try again; or {offline}")
    away = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError)
    if raised(transport.TransportError, *away):
        return UserError(f"the hub cannot be reached for '{name}': {offline}")
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return UserError(f"loading '{name}' failed ({text[:200]}): {offline}")


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
