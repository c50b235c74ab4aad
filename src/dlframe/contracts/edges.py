"""Values on the bounds of an option's type and range, and just outside."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin

from dlframe.registry.parameters import is_union, parts, validate


def edges(annotation: Any) -> tuple[list[Any], list[Any]]:
    """Values that an annotation just allows, and values that it just does not."""
    bare, bounds, optional = parts(annotation)
    allowed: list[Any]
    refused: list[Any]
    if is_union(bare):
        found = [edges(member) for member in get_args(bare)]
        allowed = [value for good, _ in found for value in good]
        refused = [value for _, bad in found for value in bad if not _fits(bare, value)]
    elif get_origin(bare) is Literal:
        allowed, refused = list(get_args(bare)), ["no such choice", -987, 0.5]
    elif get_origin(bare) in (tuple, list):
        kinds = get_args(bare)
        several = get_origin(bare) is list or kinds[-1] is Ellipsis
        inner = [edges(kind) for kind in (kinds[:1] if several else kinds)]
        usual = tuple(good[0] for good, _ in inner)
        place = [(*usual[:i], value, *usual[i + 1 :]) for i, (good, _) in enumerate(inner) for value in good]
        wrong = [(*usual[:i], value, *usual[i + 1 :]) for i, (_, bad) in enumerate(inner) for value in bad]
        allowed = [*place, (), usual * 3] if several else place
        refused = [*wrong, "text", 1] if several else [*wrong, usual[:-1], (*usual, usual[-1]), "text", 1]
    elif bare is bool:
        allowed, refused = [True, False], ["true", 1, 0.0]
    elif bare is str:
        allowed, refused = ["", "words with spaces, ü and = in them"], [1, True]
    else:
        below = (lambda x: x - 1) if bare is int else (lambda x: math.nextafter(x, -math.inf))
        above = (lambda x: x + 1) if bare is int else (lambda x: math.nextafter(x, math.inf))
        refused = ["1", "0.1x", True, *([1.5] if bare is int else [math.nan])]
        allowed = []
        for limit, allow, refuse in (
            (bounds and bounds.ge, bare, below),
            (bounds and bounds.gt, above, bare),
            (bounds and bounds.le, bare, above),
            (bounds and bounds.lt, below, bare),
        ):
            if limit is not None:
                allowed.append(allow(limit))  # type: ignore[operator]  # of a number's type
                refused.append(refuse(limit))  # type: ignore[operator]
        allowed = allowed or [bare(-3), bare(3)]
    (allowed if optional else refused).append(None)
    return allowed, refused


def _fits(annotation: Any, value: Any) -> bool:
    try:
        validate(annotation, value)
    except ValueError:
        return False
    return True
