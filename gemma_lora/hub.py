"""The hub: no wait without an end, and one line for whatever its libraries raise."""

from __future__ import annotations

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


def explain_hub_error(error: Exception, name: str, offline: str) -> UserError:
    """One line for whatever the hub's libraries raised about `name`; `offline` is the way out."""
    text = f"{type(error).__name__}: {error}"
    responses = [getattr(e, "response", None) for e in (error, error.__cause__)]
    status = next((r.status_code for r in responses if r is not None), None)
    gate = "log in at the hub, accept the licence on its page, put HF_TOKEN in .env and try again"
    # Not the mere word: of a missing one the hub's library says that it may be gated.
    if "GatedRepo" in text or "gated dataset" in text or status == 403:
        return UserError(f"'{name}' is gated: {gate}; or without the hub: {offline}")
    if any(word in text for word in ("RepositoryNotFound", "DatasetNotFound", "doesn't exist")):
        return UserError(
            f"'{name}' was not found on the hub (or is private, or needs a token): check the "
            f"spelling and HF_TOKEN in .env; or without the hub: {offline}"
        )
    if "Unauthorized" in text or status == 401:
        return UserError(f"the hub refused the token for '{name}': {gate}; or {offline}")
    if status == 429:
        return UserError(f"the hub is limiting requests for '{name}': wait, then try again")
    if status is not None and status >= 500:
        return UserError(f"the hub failed ({status}) for '{name}': try again later, or {offline}")
    if any(w in text for w in ("RemoteProtocol", "ReadError", "Consistency check")):
        return UserError(f"the download of '{name}' broke off: try again; or {offline}")
    if any(w in text for w in ("Connect", "LocalEntryNotFound", "Offline", "resolve", "timed out")):
        return UserError(f"the hub cannot be reached for '{name}': {offline}")
    return UserError(f"loading '{name}' failed ({' '.join(text.split())[:200]}): {offline}")
