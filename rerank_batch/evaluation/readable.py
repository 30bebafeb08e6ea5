"""Numbers for people: round edges for an axis, as many digits as tell something, percentages."""

import math
from collections.abc import Sequence


def round_edges(low: float, high: float, most: int) -> tuple[float, ...]:
    """From ``low`` or less to ``high`` or more, at multiples of 1, 2, 2.5 or 5 times 10**n.

    There are at least two edges, and at most ``most`` + 3. Numbers that are equal but for rounding
    lie in one step of their own size.
    """
    size = max(abs(low), abs(high))
    least = (high - low if high - low > max(1e-6 * size, 1e-12) else max(size, 1.0)) / most
    power = 10.0 ** math.floor(math.log10(least))
    steps = (1 * power, 2 * power, 2.5 * power, 5 * power, 10 * power)
    step = next(each for each in steps if each >= least * (1 - 1e-9))
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return tuple(float(f"{number * step:.12g}") for number in range(first, last + 1))


def digits_of(edges: Sequence[float]) -> int:
    """How many decimals edges at equal distances need."""
    step = edges[1] - edges[0]
    least = max(0, -math.floor(math.log10(step) + 1e-9))
    return next(
        (n for n in (least, least + 1) if abs(round(step, n) - step) < step * 1e-6), least + 1
    )


def number_text(number: float, digits: int) -> str:
    """So many decimals, a true minus sign, and no minus before a zero."""
    text = f"{abs(number):,.{digits}f}"
    return f"\N{MINUS SIGN}{text}" if number < 0 and float(text.replace(",", "")) else text


def percent(share: float) -> str:
    """A share that rounding takes neither to nothing nor to everything."""
    text = f"{100 * share:.1f}"
    if (text == "100.0" and share < 1) or (text == "0.0" and share > 0):
        return "> 99.9 %" if share > 0.5 else "< 0.1 %"
    return f"{text.removesuffix('.0')} %"
