"""Which Nextcloud a test runs against, and the processes around it.

NEXTCLOUD_URL, NEXTCLOUD_ADMIN_USER, NEXTCLOUD_ADMIN_PASSWORD     a real one; without them such tests are skipped
NEXTCLOUD_ROOT                                                    its folder on this machine, for occ and cron.php
NEXTCLOUD_DISPOSABLE=1                                            it may be encrypted whole, which cannot be undone
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nextcloud.clouds import Cloud, fake_cloud, real_cloud
from tests.nextcloud.life import Life, Occ


@pytest.fixture
def real() -> Cloud:
    """The real Nextcloud."""
    cloud = real_cloud()
    if cloud is None:
        pytest.skip("NEXTCLOUD_URL is not set: no real Nextcloud was asked")
    return cloud


@pytest.fixture(params=["fake", "real"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """The fake, and a real one where there is one."""
    if request.param == "fake":
        return fake_cloud()
    found: Cloud = request.getfixturevalue("real")
    return found


@pytest.fixture
def occ(real: Cloud) -> Occ:
    """The real one's command line."""
    root = os.environ.get("NEXTCLOUD_ROOT")
    if not root:
        pytest.skip("NEXTCLOUD_ROOT is not set: nothing can be told to this Nextcloud by occ")
    return Occ(Path(root))


@pytest.fixture
def disposable(occ: Occ) -> Occ:
    """The command line of one that nobody wants back."""
    if not os.environ.get("NEXTCLOUD_DISPOSABLE"):
        pytest.skip("NEXTCLOUD_DISPOSABLE is not set: this Nextcloud was not encrypted as a whole")
    return occ


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    yield made
    codes = made.stop()
    assert set(codes) <= {0}
