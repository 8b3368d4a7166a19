"""Which step needs which: cycles, an order to run in, and what nobody needs."""

from collections.abc import Iterable, Mapping

Needs = Mapping[str, frozenset[str]]


def cycles(needs: Needs) -> list[list[str]]:
    """Each group of steps that wait for one another, as one way around it; every step is in one at most."""
    left = dict(needs)
    found: list[list[str]] = []
    while True:
        left = _within(left)
        if not left:
            return found
        way = [next(iter(left))]
        while True:
            following = next(one for one in left if one in left[way[-1]])
            if following in way:
                found.append(way[way.index(following) :])
                break
            way.append(following)
        left = {name: of for name, of in left.items() if name not in found[-1]}


def _within(needs: Needs) -> dict[str, frozenset[str]]:
    """Without the steps that can't be part of a cycle: those that need none of the others, those that none needs."""
    left = dict(needs)
    while True:
        kept = {
            name
            for name, of in left.items()
            if of & left.keys() and any(name in others for others in left.values())
        }
        if len(kept) == len(left):
            return left
        left = {name: of & kept for name, of in left.items() if name in kept}


def in_order(needs: Needs) -> tuple[str, ...]:
    """The steps so that each comes after all that it needs; otherwise as they were given. There are no cycles."""
    order: list[str] = []
    while len(order) < len(needs):
        order.append(next(one for one in needs if one not in order and needs[one] <= set(order)))
    return tuple(order)


def needed_by(wanted: Iterable[str], needs: Needs) -> set[str]:
    """These steps and all that they need."""
    found: set[str] = set()
    waiting = [one for one in wanted if one in needs]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needs[name] & needs.keys()
    return found
