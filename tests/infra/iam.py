"""What an IAM policy allows, as far as the policies in infra/iam go.

A denial in any statement counts before every permission, and what nothing allows is denied. An
operator of a condition that is not known here is an error and not a guess.
"""

import re
from collections.abc import Mapping
from typing import Any


def allowed(
    policy: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str] | None = None
) -> bool:
    """Whether a policy lets a call through; ``context`` holds the condition keys of the call."""
    effects = {
        statement["Effect"]
        for statement in policy["Statement"]
        if any(_matches(pattern, action) for pattern in listed(statement["Action"]))
        and any(_matches(pattern, resource) for pattern in listed(statement["Resource"]))
        and _holds(statement.get("Condition", {}), context or {})
    }
    return effects == {"Allow"}


def listed(value: Any) -> list[str]:
    """IAM takes one word for a list of one."""
    return [value] if isinstance(value, str) else list(value)


def _holds(condition: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    for operator, wanted in condition.items():
        for key, values in wanted.items():
            if operator == "Null":
                if (key not in context) != (values == "true"):
                    return False
            elif operator == "StringEquals":
                if context.get(key) not in listed(values):
                    return False
            else:
                raise AssertionError(f"a policy uses {operator}, which is not judged here")
    return True


def _matches(pattern: str, text: str) -> bool:
    """``*`` is any run of characters, slashes too; ``?`` is one."""
    parts = [{"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in pattern]
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None
