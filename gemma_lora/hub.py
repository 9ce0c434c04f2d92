"""The hub: no wait without an end, and one line for whatever its libraries raise."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gemma_lora.cli import UserError

# How the datasets library words a wrong or missing choice, and the flag that makes it.
CHOICES = {
    "config": re.compile(r"(?:Config name is missing|BuilderConfig .* not found)[^\[]*(\[.*?\])"),
    "split": re.compile(r"(?:Unknown split|Bad split)[^\[]*(\[.*?\])"),
}
SHOWN_CHOICES = 20


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


class Failure(NamedTuple):
    """What the hub's libraries raised about the repository `name`."""

    name: str
    error: Exception
    causes: list[BaseException]  # the error itself and what led to it
    answer: Any  # the hub's response, None when it gave none

    def raised(self, *classes: type[Exception]) -> bool:
        """Whether one of the causes is of one of these classes."""
        return any(isinstance(cause, classes) for cause in self.causes)

    @property
    def status(self) -> int | None:
        """The response's status."""
        return None if self.answer is None else self.answer.status_code


def explain_hub_error(
    error: Exception,
    name: str,
    offline: str,
    not_found: tuple[type[Exception], ...] = (),
    revision: str | None = None,
) -> UserError:
    """One line for whatever the hub's libraries raised about `name`; `offline` is the way out.

    `not_found` are what other libraries raise for a name that the hub does not know; `revision`
    is the one that was asked for.
    """
    causes = list(causes_of(error))
    responses = (getattr(cause, "response", None) for cause in causes)
    failure = Failure(name, error, causes, next((r for r in responses if r is not None), None))
    return (
        explain_refusal(failure, offline, not_found, revision)
        or explain_status(failure, offline)
        or explain_transport(failure, offline)
    )


def explain_refusal(
    failure: Failure, offline: str, not_found: tuple[type[Exception], ...], revision: str | None
) -> UserError | None:
    """One line when the hub does not give the repository to this account, or has none such."""
    from huggingface_hub import errors

    name, status = failure.name, failure.status
    gate = "log in at the hub, accept the licence on its page, put HF_TOKEN in .env and try again"
    # The datasets library says in words only that a set is gated.
    gated = failure.raised(errors.GatedRepoError) or status == 403
    if gated or "gated dataset" in str(failure.error):
        return UserError(f"'{name}' is gated: {gate}; or without the hub: {offline}")
    if status == 401 and not failure.raised(errors.RepositoryNotFoundError):
        return UserError(f"the hub refused the token for '{name}': {gate}; or {offline}")
    if failure.raised(errors.RevisionNotFoundError):
        return UserError(
            f"'{name}' is on the hub, but has no revision '{revision}': give --revision a branch, "
            "a tag or a commit of its page, or leave it out"
        )
    if failure.raised(errors.RepositoryNotFoundError, *not_found) and status not in (429, 500):
        return UserError(
            f"'{name}' was not found on the hub (or is private, or needs a token): check the "
            f"spelling and HF_TOKEN in .env; or without the hub: {offline}"
        )
    return None


def explain_status(failure: Failure, offline: str) -> UserError | None:
    """One line for an answer whose status says all there is to say."""
    name, status = failure.name, failure.status or 0
    if status == 429:
        return UserError(f"the hub is limiting requests for '{name}': wait, then try again")
    if status >= 500:
        return UserError(f"the hub failed ({status}) for '{name}': try again later, or {offline}")
    if status == 404:
        return UserError(
            f"the hub lists '{name}', but has no {failure.answer.url.path} (404): the file was "
            f"moved or is not there yet; try again later, or {offline}"
        )
    return None


def explain_transport(failure: Failure, offline: str) -> UserError:
    """One line for a connection that broke, or was never made, and for what is left."""
    from huggingface_hub import errors

    # The hub's own base class tells which copy of httpx it speaks through.
    transport = importlib.import_module(errors.HTTPError.__module__.split(".")[0])
    name, error = failure.name, failure.error
    # A file of another length than promised has no class of its own.
    short = "Consistency check" in str(error)
    if failure.raised(transport.RemoteProtocolError, transport.ReadError) or short:
        return UserError(f"the download of '{name}' broke off: try again; or {offline}")
    away = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError)
    if failure.raised(transport.TransportError, *away):
        return UserError(f"the hub cannot be reached for '{name}': {offline}")
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return UserError(f"loading '{name}' failed ({text[:200]}): {offline}")


def wrong_choice(error: Exception, name: str, given: dict[str, str | None]) -> UserError | None:
    """One line with the choices, when a set needs another configuration or split; else None.

    `given` is what was asked for, by the name of its flag ("config", "split").
    """
    for flag, pattern in CHOICES.items():
        if (match := pattern.search(str(error))) is None:
            continue
        try:
            there = [str(choice) for choice in ast.literal_eval(match[1])]
        except (ValueError, SyntaxError):
            return None
        what = "configuration" if flag == "config" else flag
        lacks = f"has no {what} '{given[flag]}'" if given[flag] else f"has more than one {what}"
        more = f" and {len(there) - SHOWN_CHOICES} more" * (len(there) > SHOWN_CHOICES)
        shown = ", ".join(there[:SHOWN_CHOICES])
        return UserError(f"'{name}' {lacks}: say which with --{flag}: {shown}{more}")
    return None


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
