"""Sources behind one small interface: what `record` and `serve` need of a folder or a Nextcloud.

    sources = [open_source(log.store, log.path, spec) for spec in specs] or list_sources(log.store, log.path)
    summary = source.scan(Job(log.store, recorder, exclude=[log.path]))

A spec is `folder:PATH` or `nextcloud:URL`; a log remembers those that it was given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Protocol, runtime_checkable

from audit.nextcloud.access import Access
from audit.nextcloud.client import make_client, read_config, read_limits
from audit.nextcloud.inbox import NO_KEYS, EventKeys, make_hook_secret
from audit.nextcloud.limits import NO_LIMITS, parse_limits
from audit.nextcloud.source import SCHEME as NEXTCLOUD
from audit.nextcloud.source import Looked, NextcloudSource, add_nextcloud, list_nextclouds, open_configured
from audit.scanning import SCHEME as FOLDER
from audit.scanning import Job, Summary, add_folder, list_folders
from audit.store import Store
from verifier.errors import Usage

SPECS = "folder:PATH|nextcloud:URL"


class ScanSource(Protocol):
    """Something that can be scanned. `name` is for messages."""

    @property
    def row(self) -> int: ...

    @property
    def source_id(self) -> str: ...

    @property
    def name(self) -> str: ...

    def scan(self, job: Job) -> Summary:
        """One scan, in the caller's thread; everything in the summary is durable when it returns."""


@runtime_checkable
class HintedSource(ScanSource, Protocol):
    """A source that is told what changed, between its scans."""

    def look(self, job: Job) -> Looked:
        """Looks at what was hinted at, in the caller's thread; beside a scan of the same source only where kept."""

    def kept(self) -> AbstractContextManager[None]:
        """In the block looks may run beside a scan, and all share what is open."""

    def stop(self) -> None:
        """Ends scans and looks in that block, with Stopped. From any thread; the next start goes on with them."""

    def next_due(self, store: Store) -> int | None:
        """When the next look is due; None where nothing waits."""


def open_source(store: Store, directory: str, spec: str) -> ScanSource:
    """The source of this spec, known or new."""
    scheme = spec.partition(":")[0]
    if scheme == FOLDER:
        return add_folder(store, spec)
    if scheme == NEXTCLOUD:
        return add_nextcloud(store, spec, partial(open_configured, directory), read_limits(directory))
    raise Usage(f"source: got {spec!r}, want {SPECS}")


def with_limits(source: ScanSource, given: Mapping[str, str]) -> ScanSource:
    """The source, read as fast as a command's options say; of a Nextcloud alone."""
    if not given or not isinstance(source, NextcloudSource):
        return source
    return source._replace(limits=parse_limits(given, source.limits))


@asynccontextmanager
async def open_access(sources: Iterable[ScanSource], directory: str) -> AsyncIterator[Access | None]:
    """Who of a Nextcloud may have which proof is asked there; None where no source is one."""
    cloud = next((source for source in sources if isinstance(source, NextcloudSource)), None)
    if cloud is None:
        yield None
        return
    async with make_client() as client:
        yield Access(cloud.row, cloud.source_id, read_config(directory), client)


def make_event_keys(sources: Iterable[ScanSource], directory: str) -> EventKeys:
    """Who may tell this log of events: its own secret, made at the first start with a Nextcloud, and its AppAPI's."""
    if not any(isinstance(source, NextcloudSource) for source in sources):
        return NO_KEYS
    return EventKeys(make_hook_secret(directory), read_config(directory).appapi)


def list_sources(store: Store, directory: str) -> list[ScanSource]:
    """Every source that the log knows."""
    clouds = list_nextclouds(store, partial(open_configured, directory))
    limits = read_limits(directory) if clouds else NO_LIMITS
    return [*list_folders(store), *(cloud._replace(limits=limits) for cloud in clouds)]
