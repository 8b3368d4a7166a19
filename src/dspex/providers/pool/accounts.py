"""The users of the system that workers run as."""

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from dspex.configuration.pools import PoolSettings
from dspex.kit.errors import Invalid, Problem


class Account(Struct, frozen=True):
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def may_read(self, file: Path) -> bool:
        """As far as the modes of a file and the directories above it say; False for one that is not there."""
        place = file.absolute()
        try:
            return self._has(place.stat(), stat.S_IROTH) and all(
                self._has(one.stat(), stat.S_IXOTH) for one in place.parents
            )
        except OSError:
            return False

    def _has(self, of: os.stat_result, right: int) -> bool:
        """`right` is that of others: the same of the group is three bits up, and of the owner six."""
        if of.st_uid == self.uid:
            right <<= 6
        elif of.st_gid in (self.gid, *self.groups):
            right <<= 3
        return bool(of.st_mode & right)


def accounts_of(pools: Mapping[str, PoolSettings]) -> dict[str, Account]:
    """By pool, of those that have a `user`. Raises Invalid (code bad_configuration) with each that can't be had."""
    found: dict[str, Account] = {}
    problems = []
    for pool, settings in pools.items():
        if settings.user is not None:
            account = _account(settings.user)
            if isinstance(account, str):
                problems.append(Problem(f"/pools/{pool}/user", "unusable_user", account))
            else:
                found[pool] = account
    if problems:
        told = "\n".join(f"  {one.pointer}: {one.message}" for one in problems)
        raise Invalid(
            f"Workers can't be run as another user:\n{told}", code="bad_configuration", problems=problems
        )
    return found


def _account(name: str) -> Account | str:
    """Or why it can't be had."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return f"there is no user {name!r} on this system"
    if found.pw_uid == 0:
        return f"{name!r} may do anything; name a user that may do little, or leave it out"
    if os.geteuid() != 0:
        return f"only root can start processes as {name!r}; run the node as root, or leave it out"
    return Account(name, found.pw_uid, found.pw_gid, tuple(os.getgrouplist(name, found.pw_gid)))
